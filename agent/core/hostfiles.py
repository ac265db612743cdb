"""The files by which a container knows its own name and finds those of others: hostname, hosts and resolv.conf.

One rule: they are written anew for every container and belong to its root, who may change them (docker's do, too); what
the image has in their places is covered, not changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.core.dns import zone
from protos.orch.v1 import objects_pb2 as pb

HOSTNAME: Final = "/etc/hostname"
HOSTS: Final = "/etc/hosts"
RESOLV_CONF: Final = "/etc/resolv.conf"
MAX_SEARCH: Final = 6
MAX_SEARCH_CHARACTERS: Final = 256
"""resolv.conf(5): some C libraries take no more."""

_LOCAL: Final = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolving:
    """Who answers the names of this node's tasks, and where the node itself looks for names."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


NOBODY: Final = Resolving()


def files(task: pb.Task, *, hostname: str, addresses: tuple[str, ...], resolving: Resolving) -> Mapping[str, str]:
    """What stands in them, by path."""
    return {
        HOSTNAME: f"{hostname}\n",
        HOSTS: hosts(task, hostname=hostname, addresses=addresses),
        RESOLV_CONF: resolv_conf(task.meta.namespace, resolving),
    }


def hosts(task: pb.Task, *, hostname: str, addresses: tuple[str, ...]) -> str:
    """The first name is the one that `hostname --fqdn` says: the one that everybody else finds it by, too."""
    names = [hostname, hostname.partition(".")[0], task.meta.name]
    if task.slot:
        member = f"{task.service}-{task.slot}"
        names = [f"{member}.{task.service}.{task.meta.namespace}.{zone.DOMAIN}", *names, member]
    return _LOCAL + "".join(f"{address} {' '.join(dict.fromkeys(names))}\n" for address in addresses)


def resolv_conf(namespace: str, resolving: Resolving) -> str:
    """Names without a dot are looked for in the namespace first, and where the node looks last."""
    search: list[str] = []
    for domain in dict.fromkeys((f"{namespace}.{zone.DOMAIN}", zone.DOMAIN, *resolving.search)):
        if len(search) == MAX_SEARCH or len(" ".join([*search, domain])) > MAX_SEARCH_CHARACTERS:
            break
        search.append(domain)
    lines = [f"nameserver {server}" for server in resolving.servers]
    return "\n".join([*lines, f"search {' '.join(search)}", "options ndots:1", ""])
