"""Which service has a port that is published on every node, should two of them claim it.

An apply refuses the second one. Two applies in the same moment can pass each other, though, and a port that leads to
two services would be a rule that no node can load. So the older service has it, for all nodes alike.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from manifests import networking
from protos.orch.v1 import objects_pb2 as pb

PortKey: TypeAlias = tuple[int, int]
"""Protocol and number."""
Rank: TypeAlias = tuple[int, str]
"""When the service was made, and its id: the smaller one wins."""


def on_every_node(ports: Iterable[pb.Port]) -> frozenset[PortKey]:
    """The ports among these that are to listen on every node."""
    return frozenset(
        networking.published_key(port)
        for port in ports
        if port.published and networking.mode_of(port) == pb.PUBLISH_MODE_INGRESS
    )


def older_publisher(service: pb.Service, services: Iterable[pb.Service]) -> tuple[PortKey, pb.Service] | None:
    """A port that the service is to publish on every node and an older service has, and that service."""
    mine = on_every_node(service.spec.template.container.ports)
    for other in services if mine else ():
        shared = mine & on_every_node(other.spec.template.container.ports)
        if shared and rank(other) < rank(service):
            return min(shared), other
    return None


def rank(service: pb.Service) -> Rank:
    """The smaller one has a port that several claim."""
    return service.meta.created_at, service.meta.id


def without(ports: Iterable[pb.Port], lost: frozenset[PortKey]) -> list[pb.Port]:
    """The ports, those in `lost` not published."""
    kept = []
    for port in ports:
        mine = pb.Port()
        mine.CopyFrom(port)
        if networking.published_key(port) in lost:
            mine.ClearField("published")
        kept.append(mine)
    return kept


class Claims:
    """Who claims which port. Services by `namespace/name`."""

    def __init__(self) -> None:
        self._of_port: dict[PortKey, dict[str, Rank]] = {}
        self._of_service: dict[str, frozenset[PortKey]] = {}

    def replace(self, key: str, ports: frozenset[PortKey], rank: Rank) -> set[str]:
        """Notes what a service claims now; the others whose ports that may change."""
        before = self._of_service.get(key, frozenset())
        concerned = {other for port in before ^ ports for other in self._of_port.get(port, ())}
        for port in before - ports:
            del self._of_port[port][key]
            if not self._of_port[port]:
                del self._of_port[port]
        for port in ports:
            self._of_port.setdefault(port, {})[key] = rank
        if ports:
            self._of_service[key] = ports
        else:
            self._of_service.pop(key, None)
        return concerned - {key}

    def lost(self, key: str) -> frozenset[PortKey]:
        """The ports that a service claims and an older one has."""
        claimed = self._of_service.get(key, frozenset())
        return frozenset(port for port in claimed if _first(self._of_port[port]) != key)


def _first(claims: Mapping[str, Rank]) -> str:
    return min(claims, key=lambda key: claims[key])
