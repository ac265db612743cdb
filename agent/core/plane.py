"""The data plane of a node as a value in the making: what is known of services and tasks, and the next transaction.

Two rules: noting something costs next to nothing, and only what has changed is worked out, once, when the next
transaction is asked for; and whoever asks for a transaction carries it out, or says that it was lost.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from agent.core import assignments, balancing, fixedrules, overlay
from agent.core.balancing import Side, View, Watched
from agent.core.elements import Elements
from agent.core.firewall import NOTHING, Element, Part
from agent.core.network import Attachment
from protos import families
from protos.families import V4, Family
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

_PEERS = "-"
"""The owner of what is the network's own; a service's name has a slash in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What the kernel is to be told. Empty text: nothing."""

    text: str
    whole: bool  # it does not depend on what is there
    udp_gone: frozenset[str] = frozenset()  # addresses whose UDP flows are to be forgotten
    udp_opened: frozenset[int] = frozenset()  # ports of the node whose UDP flows are, since they were not translated


class Plane:
    """What should be in the node's table. Nothing is asked of it before `configure`."""

    def __init__(self, trusted: Sequence[str] = (), *, outer: Family = V4) -> None:
        """`outer`: the family by which nodes reach each other."""
        self._trusted = trusted
        self._outer = outer
        self._network: dpb.NodeNetwork | None = None
        self._services: Mapping[str, dpb.NetworkService] = {}
        self._by_name: dict[str, dpb.NetworkService] = {}
        self._attached: dict[str, Attachment] = {}
        self._here: dict[str, dict[str, Attachment]] = {}  # by service and task
        self._sides: tuple[Side, ...] = ()
        self._ready: dict[tuple[str, Family], tuple[str, ...]] = {}
        self._watched = Watched()
        self._stale: set[str] = set()
        self._elements = Elements()
        self._fixed = ""
        self._lost = True

    def configure(self, network: dpb.NodeNetwork) -> None:
        """The network of the node. A peer that comes or goes is an element; anything else makes everything anew."""
        self._network = network
        self._sides = tuple(
            Side(family=family, subnet=ip_network(family.get(network, "subnet")))
            for family in families.told(network, "subnet")
        )
        fixed = fixedrules.table(network, self._trusted, outer=self._outer)
        if fixed != self._fixed:
            self._fixed, self._lost = fixed, True
            self._stale.update(self._by_name, self._here)
        gateways = {
            (f"gateways{side.family.suffix}", overlay.gateway(subnet)): ""
            for peer in network.peers
            for side in self._sides
            if (subnet := side.family.get(peer, "subnet"))
        }
        self._elements.put(_PEERS, Part(elements=gateways | self._nodes(network)))

    def _nodes(self, network: dpb.NodeNetwork) -> dict[Element, str]:
        named = [peer.address for peer in network.peers if peer.address]
        return {(f"nodes{self._outer.suffix}", each): "" for each in named if families.of(each) is self._outer}

    def serve(self, services: Mapping[str, dpb.NetworkService], touched: Collection[str] | None = None) -> None:
        """All services that there are, by id. `touched`: those that may be others than before; None: any."""
        before, self._services = self._services, services
        were, are = assignments.different(before, services, touched)
        for gone in (service for service in were if service.id not in services):
            name = _name(gone)
            if name in self._by_name and self._by_name[name].id == gone.id:
                self._by_name[name] = _remains(gone)
                self._forget_remains(name)
            self._stale.add(name)
        for service in are:
            self._by_name[_name(service)] = service
            self._stale.add(_name(service))

    def attach(self, attachment: Attachment) -> None:
        """A task is here."""
        self.detach(attachment.task_id)
        self._attached[attachment.task_id] = attachment
        self._here.setdefault(attachment.service, {})[attachment.task_id] = attachment
        self._stale.add(attachment.service)

    def detach(self, task_id: str) -> None:
        """It is not any more."""
        attachment = self._attached.pop(task_id, None)
        if attachment is None:
            return
        here = self._here[attachment.service]
        del here[task_id]
        if not here:
            del self._here[attachment.service]
            self._forget_remains(attachment.service)
        self._stale.add(attachment.service)

    def lose(self) -> None:
        """The kernel does not have what it was told."""
        self._lost = True

    def transaction(self) -> Transaction:
        """What the kernel has to be told now. Counts as told."""
        if self._network is None:
            return Transaction(text="", whole=False)
        self._freshen()
        whole, self._lost = self._lost, False
        text = self._fixed + self._elements.everything() if whole else self._elements.difference()
        gone, opened = self._elements.take_udp()
        return Transaction(text=text, whole=whole, udp_gone=gone, udp_opened=opened)

    def _forget_remains(self, name: str) -> None:
        """What is left of a service that has gone, as soon as it has no task here."""
        service = self._by_name.get(name)
        if service is not None and service.id not in self._services and name not in self._here:
            del self._by_name[name]

    def _freshen(self) -> None:
        watched = balancing.watched_by(self._by_name[name] for name in self._here if name in self._by_name)
        if watched != self._watched:
            self._stale.update(self._concerned(watched))
            self._watched = watched
        for name in sorted(self._stale):
            self._elements.put(name, self._part(name))
        self._stale.clear()

    def _concerned(self, watched: Watched) -> Iterable[str]:
        """Services whose addresses are to be known now, or not any more."""
        networks = watched.networks ^ self._watched.networks
        sources = watched.sources ^ self._watched.sources
        for name, service in self._by_name.items():
            if service.id in sources or not networks.isdisjoint(service.networks):
                yield name

    def _part(self, name: str) -> Part:
        service, attached = self._by_name.get(name), tuple(self._here.get(name, {}).values())
        if service is None:
            for family in families.FAMILIES:
                self._ready.pop((name, family), None)
            return balancing.part_of(View(service=None, attached=attached, sides=self._sides)) if attached else NOTHING
        sides = tuple(self._arranged(name, service, side) for side in self._sides)
        return balancing.part_of(View(service=service, attached=attached, sides=sides, watched=self._watched))

    def _arranged(self, name: str, service: dpb.NetworkService, side: Side) -> Side:
        ready = self._ready[name, side.family] = balancing.arrange(
            self._ready.get((name, side.family), ()),
            balancing.ready_addresses(service, side.family),
            by_client=service.session_affinity == pb.SESSION_AFFINITY_CLIENT_IP,
        )
        return Side(family=side.family, subnet=side.subnet, ready=ready)


def _remains(service: dpb.NetworkService) -> dpb.NetworkService:
    """Of a service that has gone: what holds for its last tasks while they stop."""
    return dpb.NetworkService(
        id=service.id,
        namespace=service.namespace,
        name=service.name,
        networks=service.networks,
        allow=[allowed for allowed in service.allow if allowed.ports],
        internal=service.internal,
    )


def _name(service: dpb.NetworkService) -> str:
    return f"{service.namespace}/{service.name}"
