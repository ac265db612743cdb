"""The services of the cluster as the network sees them, kept up to date with the store, for all sessions together.

Every node is told of every service. With 100 nodes and 1,000 services nobody can work out, or look through, all of
them at each change. So the table recomputes the services that a change concerns, once, and numbers its lists: each
service bears the number of the list that changed it last. Who knows list 41 and asks at list 43 gets what changed in 42
and 43, at the cost of that.

The rule: the table is a function of the snapshot. What is kept beside it only says what changed when.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.core import endpoints, published, revisions
from controlplane.store import snapshots
from manifests import networking
from protos import absence, kinds, states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

MAX_REMOVED: Final = 10_000
"""Services that are gone and still known to be. Who is behind that is told everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What leads from a list to the list `number`."""

    number: int
    changed: Sequence[wire.NetworkService] = ()
    removed: Sequence[str] = ()
    """Ids."""


class Table:
    """Give it a snapshot, then changes. Nothing that it answers with is ever altered."""

    def __init__(self) -> None:
        self.number = 0
        """Of the present list. 0 before there is any."""
        self._services: dict[str, wire.NetworkService] = {}
        """By `namespace/name`."""
        self._present: dict[str, wire.NetworkService] = {}
        """By id."""
        self._changed: dict[str, int] = {}
        """The list that changed a service last, by id, in that order; those that are gone as well."""
        self._oldest = 0
        """A list before this one cannot be led to the present one."""
        self._sources: dict[str, frozenset[str]] = {}
        self._named: dict[str, set[str]] = {}
        """The services whose rules name a service."""
        self._left: dict[str, int] = {}
        """The first list that does not have a task as ready any more."""
        self._claims = published.Claims()
        self._nodes: dict[str, int] = {}
        self._internal: set[str] = set()

    def rebuild(self, snapshot: snapshots.Snapshot) -> None:
        """Makes it the table of this snapshot, whatever it was of."""
        self._nodes = {node.meta.id: node.status.state for node in snapshot.all(pb.Node).values()}
        self._internal = {kinds.qualified(one) for one in snapshot.all(pb.Network).values() if one.spec.internal}
        keys = {kinds.qualified(service) for service in snapshot.all(pb.Service).values()}
        first = self.number == 0
        self._recompute(keys | self._services.keys(), snapshot)
        if first:
            # What the leader before this one told of them is not known.
            self.number = max(self.number, 1)
            self._left = {one.task_id: self.number for one in self._endpoints() if not one.ready}

    def update(self, changes: Iterable[snapshots.Change], snapshot: snapshots.Snapshot) -> bool:
        """Takes in what led to this snapshot; whether there is a new list."""
        before = self.number
        self._recompute({key for one in changes for key in self._concerned(one, snapshot)}, snapshot)
        return self.number != before

    def everything(self) -> Difference:
        """The present list, for who knows none."""
        return Difference(number=self.number, changed=tuple(self._present.values()))

    def since(self, number: int) -> Difference | None:
        """What leads from list `number` to the present one; None when that is not known any more."""
        if number < self._oldest:
            return None
        ids = []
        for service_id in reversed(self._changed):
            if self._changed[service_id] <= number:
                break
            ids.append(service_id)
        return Difference(
            number=self.number,
            changed=tuple(self._present[name] for name in ids if name in self._present),
            removed=tuple(name for name in ids if name not in self._present),
        )

    def left(self, task_id: str) -> int:
        """The first list that does not have the task as ready; 0 when none ever had."""
        return self._left.get(task_id, 0)

    def service(self, key: str) -> wire.NetworkService | None:
        """By `namespace/name`."""
        return self._services.get(key)

    # What a change concerns -------------------------------------------------------------------------------------------

    def _concerned(self, change: snapshots.Change, snapshot: snapshots.Snapshot) -> Iterator[str]:
        match change.after or change.before:
            case pb.Service() as service:
                yield kinds.qualified(service)
                yield from self._named.get(kinds.qualified(service), ())
            case pb.Revision() as revision:
                yield kinds.service_of(revision)
            case pb.Task() as task:
                if change.after is None or states.is_terminal(task.status.state):
                    self._left.pop(task.meta.id, None)
                yield kinds.service_of(task)
            case pb.Node() as node:
                yield from self._concerned_by_node(node, snapshot, gone=change.after is None)
            case pb.Network() as network:
                yield from self._concerned_by_network(network, snapshot, gone=change.after is None)
            case pb.Image() | pb.Event() | pb.Endpoints() | pb.Cluster() | None:
                pass

    def _concerned_by_node(self, node: pb.Node, snapshot: snapshots.Snapshot, *, gone: bool) -> Iterator[str]:
        # Whose agent has said that it is back soon is there: its machine is well, and its tasks answer.
        state = pb.NODE_STATE_READY if absence.is_expected(node) else node.status.state
        state = pb.NODE_STATE_UNSPECIFIED if gone else state
        if self._nodes.get(node.meta.id, pb.NODE_STATE_UNSPECIFIED) == state:
            return
        self._nodes[node.meta.id] = state
        if gone:
            del self._nodes[node.meta.id]
        yield from (kinds.service_of(task) for task in snapshot.tasks_on(node.meta.id).values())

    def _concerned_by_network(self, network: pb.Network, snapshot: snapshots.Snapshot, *, gone: bool) -> Iterator[str]:
        key = kinds.qualified(network)
        if network.spec.internal and not gone:
            self._internal.add(key)
        else:
            self._internal.discard(key)
        for service in snapshot.all(pb.Service).values():
            if key in networking.networks_of(service):
                yield kinds.qualified(service)

    # Lists ------------------------------------------------------------------------------------------------------------

    def _recompute(self, keys: Iterable[str], snapshot: snapshots.Snapshot) -> None:
        concerned = set(keys)
        concerned |= {other for key in keys for other in self._claim(key, snapshot)}
        made = [(key, self._made(key, snapshot)) for key in sorted(concerned)]
        different = [(key, after) for key, after in made if after != self._services.get(key)]
        if not different:
            return
        self.number += 1
        for key, after in different:
            self._replace(key, after)
        self._forget()

    def _made(self, key: str, snapshot: snapshots.Snapshot) -> wire.NetworkService | None:
        namespace, _, name = key.partition("/")
        service = snapshot.get(pb.Service, name, namespace=namespace)
        self._note_sources(key, endpoints.sources_of(service) if service is not None else frozenset())
        if service is None:
            return None
        return endpoints.network_service(
            service,
            snapshot.revisions_of(namespace, name).values(),
            snapshot.tasks_of(namespace, name).values(),
            node_states=self._nodes,
            internal_networks=self._internal,
            find=lambda space, of: snapshot.get(pb.Service, of, namespace=space),
            lost=self._claims.lost(key),
        )

    def _claim(self, key: str, snapshot: snapshots.Snapshot) -> set[str]:
        """Notes the ports that a service claims; the services that this concerns."""
        namespace, _, name = key.partition("/")
        service = snapshot.get(pb.Service, name, namespace=namespace)
        known = snapshot.revisions_of(namespace, name).values()
        newest = revisions.present(service, known) if service is not None else None
        if service is None or newest is None:
            return self._claims.replace(key, frozenset(), (0, ""))
        ports = published.on_every_node(newest.template.container.ports)
        return self._claims.replace(key, ports, published.rank(service))

    def _note_sources(self, key: str, sources: frozenset[str]) -> None:
        for gone in self._sources.get(key, frozenset()) - sources:
            self._named[gone].discard(key)
            if not self._named[gone]:
                del self._named[gone]
        for source in sources:
            self._named.setdefault(source, set()).add(key)
        if sources:
            self._sources[key] = sources
        else:
            self._sources.pop(key, None)

    def _replace(self, key: str, after: wire.NetworkService | None) -> None:
        before = self._services.pop(key, None)
        if before is not None and (after is None or after.id != before.id):
            del self._present[before.id]
            self._mark(before.id)
        if after is not None:
            self._services[key] = self._present[after.id] = after
            self._mark(after.id)
        ready = {one.task_id for one in after.endpoints if one.ready} if after is not None else set()
        for one in before.endpoints if before is not None else ():
            if one.ready and one.task_id not in ready:
                self._left[one.task_id] = self.number

    def _mark(self, service_id: str) -> None:
        self._changed.pop(service_id, None)
        self._changed[service_id] = self.number

    def _forget(self) -> None:
        """The oldest of those that are gone."""
        surplus = len(self._changed) - len(self._present) - MAX_REMOVED
        if surplus <= 0:
            return
        for service_id in [name for name in self._changed if name not in self._present][:surplus]:
            self._oldest = self._changed.pop(service_id)

    def _endpoints(self) -> Iterator[wire.Endpoint]:
        return (one for service in self._present.values() for one in service.endpoints)


def endpoints_of(snapshot: snapshots.Snapshot) -> dict[str, pb.Endpoints]:
    """What people are shown of the table of a snapshot, by the keys that they would have in the store."""
    table = Table()
    table.rebuild(snapshot)
    by_id = {service.meta.id: service for service in snapshot.all(pb.Service).values()}
    return {kinds.key(one): one for one in (shown(each, by_id) for each in table.everything().changed)}


def shown(value: wire.NetworkService, by_id: Mapping[str, pb.Service]) -> pb.Endpoints:
    """What people are shown of one service; `by_id`: all that there are."""
    meta = by_id[value.id].meta
    return pb.Endpoints(
        meta=pb.Meta(
            id=value.id,
            name=value.name,
            namespace=value.namespace,
            labels=meta.labels,
            version=meta.version,
            created_at=meta.created_at,
        ),
        status=pb.EndpointsStatus(
            address=value.address,
            address6=value.address6,
            ports=value.ports,
            tasks=[
                pb.EndpointTask(
                    id=one.task_id,
                    slot=one.slot,
                    node_id=one.node_id,
                    address=one.address,
                    address6=one.address6,
                    ready=one.ready,
                )
                for one in value.endpoints
            ],
            networks=value.networks,
            internal=value.internal,
            allowed=[
                pb.EndpointSource(service=kinds.qualified(by_id[one.service_id]), ports=one.ports)
                for one in value.allow
                if one.service_id in by_id
            ],
        ),
    )
