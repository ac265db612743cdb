"""Who may fetch blobs of images from this node: the other nodes of the cluster, and its control planes.

Two rules. TLS has verified that a certificate is of the cluster's root; people have such a certificate, too, so its
role decides. And its holder has to be among those that the leader tells of, with a certificate that was made since they
joined: one that was put out is let in nowhere, although its certificate is good for weeks.
"""

from collections.abc import Callable, Iterable, Mapping

from protos.orch.v1 import dispatcher_pb2 as dpb
from trust import credentials
from trust.core import certificate, lifetime
from trust.core.identity import Malformed, Role

ROUNDED_MS = 1_000
"""Certificates know whole seconds only."""


class Members:
    """`network`: what the leader has told last; None: nothing yet."""

    def __init__(self, network: Callable[[], dpb.NodeNetwork | None]) -> None:
        self._network = network
        self._read: dpb.NodeNetwork | None = None
        self._since: dict[tuple[Role, str], int] = {}

    def refusal(self, said: Mapping[str, Iterable[bytes]]) -> str:
        """Why a call is not answered, of what gRPC says of its connection; empty: it is."""
        try:
            facts = credentials.caller(said)
        except Malformed as error:
            return str(error)
        since = self._joined(facts)
        if not since:
            return f"{facts.identity} may not fetch from a node: members that this one knows of, and no people, may"
        if facts.not_before_ms + lifetime.BACKDATED_MS + ROUNDED_MS < since:
            return f"the certificate of {facts.identity} is from before they joined this cluster"
        return ""

    def _joined(self, facts: certificate.Facts) -> int:
        network = self._network()
        if network is not self._read:
            self._read = network
            self._since = _since(network) if network is not None else {}
        return self._since.get((facts.identity.role, facts.identity.name), 0)


def _since(network: dpb.NodeNetwork) -> dict[tuple[Role, str], int]:
    nodes = {(Role.NODE, peer.node_id): peer.trusted_since for peer in network.peers}
    return nodes | {(Role.CONTROLPLANE, name): since for name, since in network.instances.items()}
