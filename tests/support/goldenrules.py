"""The fixed rules of a node of each kind, written down in full beside the tests.

python -m tests.support.goldenrules    writes them anew
"""

from pathlib import Path
from typing import Final

from agent.core import fixedrules
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb

FOLDER: Final = Path(__file__).parent.parent / "unit" / "agent" / "rules"
_IPV4: Final = {"cluster_range": "10.112.0.0/16", "subnet": "10.112.1.0/24", "service_range": "10.113.0.0/16"}
_IPV6: Final = {
    "cluster_range6": "fd00:112::/48",
    "subnet6": "fd00:112:0:1::/64",
    "service_range6": "fd00:113::/112",
}
KINDS: Final[dict[str, tuple[dpb.NodeNetwork, Family]]] = {
    "ipv4": (dpb.NodeNetwork(**_IPV4), V4),
    "dual": (dpb.NodeNetwork(**_IPV4, **_IPV6), V4),
    "ipv6": (dpb.NodeNetwork(**_IPV6), V6),
}
_TRUSTED: Final = ("192.0.2.254/32", "2001:db8::fe/128")


def path(name: str) -> Path:
    """Where the rules of that kind stand."""
    return FOLDER / f"{name}.nft"


def text(name: str) -> str:
    """What they are now."""
    network, outer = KINDS[name]
    return fixedrules.table(network, _TRUSTED, outer=outer)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for kind in KINDS:
        path(kind).write_text(text(kind))
