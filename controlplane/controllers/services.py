"""Keeps services whole and tidy: one key a service, `<namespace>/<service>`."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.controllers.dependencies import waits_for
from controlplane.core import (
    addresses,
    dependencies,
    eligibility,
    garbage,
    lookup,
    plan,
    published,
    replicated,
)
from controlplane.store.snapshots import Change, Derived, Snapshot
from protos import families, kinds, schema, states
from protos.families import V4, V6, Family
from protos.orch.v1 import objects_pb2 as pb


class Services:
    """Replicated and global services: tasks for their places, their revisions and their status."""

    name = "services"

    def __init__(self, suffixes: Iterator[str], address_range: str, address_range6: str = "") -> None:
        self._suffixes = suffixes
        self._ranges = {family: text for family, text in ((V4, address_range), (V6, address_range6)) if text}
        self._left = Derived(pb.Node, _Left.of)

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        node = change.after or change.before
        if isinstance(node, pb.Node):
            # Draining asks its tasks to leave; and whether those of others can leave may depend on it.
            left = self._left.of(snapshot)
            concerned = {node.meta.id, *left.draining, *(one.meta.id for one in left.tainted)}
            tasks = (task for one in concerned for task in snapshot.tasks_on(one).values())
            return {kinds.service_of(task) for task in tasks} | _global_keys(snapshot)
        if _is_own_status(change):
            return []
        return [
            *service_keys(change),
            *_waiting_for_its_address(change, snapshot),
            *_publishing_the_same(change, snapshot),
            *_needed_no_more(change, snapshot),
        ]

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        return [kinds.qualified(service) for service in snapshot.all(pb.Service).values()]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:
        left = self._left.of(snapshot)
        given = self._give_addresses(snapshot, keys)
        made = plan.join(
            self._plan_one(
                snapshot,
                key,
                left,
                {family: got[key] for family, got in given.items() if key in got},
                now_ms,
            )
            for key in sorted(keys)
        )
        record = snapshot.get(pb.Cluster, addresses.CLUSTER)
        last = [next((address for address in reversed(got.values()) if address), "") for got in given.values()]
        remembered = addresses.remember(record, now_ms=now_ms, service_addresses=last)
        return plan.Plan(changes=(*remembered, *made.changes), wake_at=made.wake_at)

    def _give_addresses(self, snapshot: Snapshot, keys: frozenset[str]) -> dict[Family, dict[str, str]]:
        """A virtual address for each of the services that is to get one, in this order; empty for who gets none."""
        return {family: self._give_of(family, snapshot, keys) for family in self._ranges}

    def _give_of(self, family: Family, snapshot: Snapshot, keys: frozenset[str]) -> dict[str, str]:
        wanting = [
            key for key in sorted(keys) if (one := lookup.service_at(snapshot, key)) and addresses.wanted(one, family)
        ]
        if not wanting:
            return {}
        taken = {family.get(service.status, "address") for service in snapshot.all(pb.Service).values()}
        record = snapshot.get(pb.Cluster, addresses.CLUSTER)
        pool = addresses.service_addresses(self._ranges[family], taken, record)
        return {key: pool.take() for key in wanting}

    def _plan_one(
        self,
        snapshot: Snapshot,
        key: str,
        left: "_Left",
        given: Mapping[Family, str],
        now_ms: int,
    ) -> plan.Plan:
        service = lookup.service_at(snapshot, key)
        if service is None:
            return plan.NOTHING
        namespace, name = key.split("/")
        revisions = snapshot.revisions_of(namespace, name).values()
        driven = eligibility.driven_out(revisions, left.tainted)
        needed_by = _needed_by(service, snapshot)
        situation = replicated.Situation(
            service=service,
            revisions=revisions,
            tasks=snapshot.tasks_of(namespace, name).values(),
            draining=left.draining,
            driven=driven,
            now_ms=now_ms,
            nodes=snapshot.all(pb.Node).values() if service.spec.mode == pb.SERVICE_MODE_GLOBAL else (),
            deadlines=left.deadlines if left.draining or driven else {},
            address=given.get(V4, ""),
            address6=given.get(V6, ""),
            waits_for=waits_for(service, snapshot) if service.spec.depends_on else "",
            needed=bool(needed_by),
            trouble="; ".join(
                self._troubles(
                    service, snapshot, needed_by, without=[family for family, got in given.items() if not got]
                )
            ),
        )
        return replicated.reconcile(situation, self._suffixes)

    def _troubles(
        self, service: pb.Service, snapshot: Snapshot, needed_by: Sequence[str], *, without: Iterable[Family]
    ) -> Iterator[str]:
        for family in without:
            yield f"no virtual address: the range {self._ranges[family]} has none left"
        if needed_by:
            depend = "depends" if len(needed_by) == 1 else "depend"
            done = "is deleted" if service.meta.deleted_at else "stops"
            yield f"it {done} after {', '.join(needed_by)}, which {depend} on it"
        found = published.older_publisher(service, snapshot.all(pb.Service).values())
        if found is not None:
            (protocol, number), holder = found
            word = schema.enum_word(pb.Protocol.DESCRIPTOR, protocol)
            yield f"port {number}/{word} is not published: {kinds.label(holder)} is older and has it"

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""


class Garbage:
    """Removes records that nobody asks about any more."""

    name = "garbage"

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - the change says it all
        if isinstance(change.after, pb.Task) and not states.is_terminal(change.after.status.state):
            return []
        return [] if _is_own_status(change) else service_keys(change)

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        tasks = {kinds.service_of(task) for task in snapshot.all(pb.Task).values()}
        return tasks | {kinds.service_of(one) for one in snapshot.all(pb.Revision).values()}

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - garbage has no clock
        return plan.join(self._plan_one(snapshot, key) for key in sorted(keys))

    def _plan_one(self, snapshot: Snapshot, key: str) -> plan.Plan:
        namespace, name = key.split("/")
        return garbage.collect(
            snapshot.tasks_of(namespace, name).values(),
            snapshot.revisions_of(namespace, name).values(),
            snapshot.get(pb.Service, name, namespace=namespace),
        )

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""


def _is_own_status(change: Change) -> bool:
    """Only the status of a service has changed, which the service loop has just written itself."""
    before, after = change.before, change.after
    if not isinstance(before, pb.Service) or not isinstance(after, pb.Service):
        return False
    return (before.meta.generation, before.meta.deleted_at) == (after.meta.generation, after.meta.deleted_at)


def service_keys(change: Change) -> Iterable[str]:
    """The service that a changed service, task or revision belongs to."""
    value = change.after or change.before
    match value:
        case pb.Service():
            return [kinds.qualified(value)]
        case pb.Task() | pb.Revision():
            return [kinds.service_of(value)]
        case _:
            return []


def _global_keys(snapshot: Snapshot) -> set[str]:
    """The services that any node may get a task of."""
    services = snapshot.all(pb.Service).values()
    return {kinds.qualified(one) for one in services if one.spec.mode == pb.SERVICE_MODE_GLOBAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """The nodes that tasks have to leave."""

    draining: frozenset[str]
    tainted: Sequence[pb.Node]
    deadlines: Mapping[str, int]
    """When drains end to wait for anything."""

    @classmethod
    def of(cls, nodes: Mapping[str, pb.Node]) -> "_Left":
        """`nodes`: all of a snapshot."""
        nothing = pb.TaskTemplate()
        draining = [node for node in nodes.values() if node.spec.availability == pb.AVAILABILITY_DRAIN]
        return cls(
            draining=frozenset(node.meta.id for node in draining),
            tainted=[node for node in nodes.values() if node.spec.taints and eligibility.drives_out(nothing, node)],
            deadlines={node.meta.id: node.spec.drain_deadline for node in draining if node.spec.drain_deadline},
        )


def _waiting_for_its_address(change: Change, snapshot: Snapshot) -> Iterable[str]:
    """When a service goes, others may have been waiting for the address that it had."""
    if change.after is not None or not isinstance(change.before, pb.Service):
        return []
    had = families.told(change.before.status, "address")
    return [
        kinds.qualified(service)
        for service in (snapshot.all(pb.Service).values() if had else ())
        if any(addresses.wanted(service, family) for family in had)
    ]


def _needed_by(service: pb.Service, snapshot: Snapshot) -> tuple[str, ...]:
    """The services that one that is deleted or stopped has to outlive."""

    def tasks_of(one: pb.Service) -> Collection[pb.Task]:
        return snapshot.tasks_of(one.meta.namespace, one.meta.name).values()

    return dependencies.needed_by(service, snapshot.all(pb.Service).values(), tasks_of)


def _needed_no_more(change: Change, snapshot: Snapshot) -> Iterable[str]:
    """When a service goes, those that it depends on may have been waiting for that; when the last task of a stopped one
    ends, too; and when one that was to go is to stay, they have nothing to wait for any more.
    """
    match change.before:
        case pb.Service() as user if change.after is None or dependencies.is_leaving(user):
            return _dependencies_of(user)
        case pb.Task() as task if _has_ended(change):
            its = snapshot.get(pb.Service, task.service, namespace=task.meta.namespace)
            return _dependencies_of(its) if its is not None and its.spec.stopped else []
        case _:
            return []


def _has_ended(change: Change) -> bool:
    return not isinstance(change.after, pb.Task) or states.is_terminal(change.after.status.state)


def _dependencies_of(service: pb.Service) -> list[str]:
    return [f"{service.meta.namespace}/{name}" for name in service.spec.depends_on]


def _publishing_the_same(change: Change, snapshot: Snapshot) -> Iterable[str]:
    """When a service takes a port of every node or leaves it, others may have lost it or get it."""
    ports = {
        port
        for value in (change.before, change.after)
        if isinstance(value, pb.Service)
        for port in published.on_every_node(value.spec.template.container.ports)
    }
    if not ports:
        return []
    services = snapshot.all(pb.Service).values()
    return [
        kinds.qualified(one) for one in services if ports & published.on_every_node(one.spec.template.container.ports)
    ]
