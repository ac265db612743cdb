"""Tasks of a service for which this cluster has no place, as it is now, even if nothing else ran.

The rule: the scheduler's own filters and its own choice are asked, about nodes as if they had no task. What is told
names the field without which there would be a place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from controlplane.core import ask as asking
from controlplane.core import choosing, filters, fleet, refusals, scoring
from controlplane.core.demand import Demand
from manifests import defaults
from protos.orch.v1 import objects_pb2 as pb

MOST = 2_000
"""Replicas that are placed one by one. Where so many find a place, the others are believed to."""

_PLACEMENT = "spec.template.placement"
_CONTAINER = "spec.template.container"
_AMOUNTS = ("cpu", "memory", "pids", "disk")
_REMEDIES: Mapping[str, tuple[str, str]] = {
    "constraints": (f"{_PLACEMENT}.constraints", "change them, or `orchctl node label NODE KEY=VALUE`"),
    "taints": (f"{_PLACEMENT}.tolerations", "tolerate a taint, or `orchctl node taint NODE KEY-`"),
    "users": (f"{_CONTAINER}.userns", "leave it out, or add a node whose containers have users of their own"),
}
"""By the filter that says no most often: the field that it is about, and what to do."""


def of(service: pb.Service, empty: fleet.Fleet) -> Iterator[str]:
    """`empty`: the nodes as if they had no task, at least one."""
    template: pb.TaskTemplate = defaults.resolve(service.spec.template)
    task = pb.Task(meta=pb.Meta(namespace=service.meta.namespace), service=service.meta.name)
    ask = _by_itself(asking.read(task, template), empty)
    if not filters.passing(empty, replace(ask, near=(), apart=(), spread=())).any():
        yield _nowhere(ask, template, empty)
    elif service.spec.mode != pb.SERVICE_MODE_GLOBAL:
        count = service.spec.replicas if service.spec.HasField("replicas") else 1
        yield from _too_few_nodes_for_ports(ask, template, count, empty)
        yield from _too_few_places(replace(ask, demand=replace(ask.demand, ports=frozenset())), template, count, empty)


def _by_itself(ask: asking.Ask, empty: fleet.Fleet) -> asking.Ask:
    """Without what is only a wish, what depends on other services, and labels that no node has: those are told of
    elsewhere.
    """

    def counts(one: asking.Affinity) -> bool:
        return one.service == ask.service and not one.weight and bool(empty.column(one.by).values)

    return replace(
        ask,
        preferences=(),
        near=[one for one in ask.near if counts(one)],
        apart=[one for one in ask.apart if counts(one)],
        spread=[(by, skew) for by, skew in ask.spread if skew and empty.column(by).values],
    )


# None -------------------------------------------------------------------------------------------------------------


def _nowhere(ask: asking.Ask, template: pb.TaskTemplate, empty: fleet.Fleet) -> str:
    """What no node could take if it were empty."""
    found = refusals.Look(empty, replace(ask, near=(), apart=(), spread=())).refusals()
    told = f"its tasks stay pending, even if every node were empty: {refusals.sentence(found)}"
    first = found[0].filter
    if first in _AMOUNTS:
        return f"{_reserving(template, first)}: {told}; reserve less, or add a node that has more"
    if first == "generic":
        most = {name: max(len(free.get(name, ())) for free in empty.generic) for name in ask.demand.generic}
        name = next((name for name, count in ask.demand.generic.items() if most[name] < count), "")
        return f"{_reserving(template, first, name)}: {told}; reserve less, or add a node that has more"
    field, remedy = _REMEDIES.get(first, ("", ""))
    return f"{field}: {told}; {remedy}" if field else told


def _reserving(template: pb.TaskTemplate, resource: str, generic: str = "") -> str:
    """The field of the container that reserves most of something when the task needs most of it.

    Init containers run one by one, then the others together (`containers.reserved`).
    """

    def amount(place: tuple[str, pb.Container]) -> int:
        reserved = place[1].resources.reservations
        return reserved.generic.get(generic, 0) if resource == "generic" else int(getattr(reserved, resource))

    together = [(_CONTAINER, template.container)]
    together += [(f"spec.template.sidecars[{index}]", one) for index, one in enumerate(template.sidecars)]
    before = [(f"spec.template.init[{index}]", one) for index, one in enumerate(template.init)]
    first = max(before, key=amount, default=None)
    field, _ = first if first is not None and amount(first) > sum(map(amount, together)) else max(together, key=amount)
    return f"{field}.resources.reservations.{resource}{f'.{generic}' if generic else ''}"


# Some -------------------------------------------------------------------------------------------------------------


def _too_few_nodes_for_ports(
    ask: asking.Ask, template: pb.TaskTemplate, count: int, empty: fleet.Fleet
) -> Iterator[str]:
    """A port of a node can be taken by one task only: 3 replicas that publish 8080 need 3 nodes."""
    ports = enumerate(template.container.ports)
    published = [(index, one) for index, one in ports if one.published and one.mode == pb.PUBLISH_MODE_HOST]
    able = np.array([_takes_tasks(node) for node in empty.nodes], dtype=np.bool_)
    number = int((able & filters.eligible(empty, ask)).sum())
    if published and count > number:
        index, port = published[0]
        yield (
            f"{_CONTAINER}.ports[{index}]: {port.published} is published on the node, so each of the {count} replicas "
            f"needs a node of its own, and {f'{number} nodes take' if number != 1 else '1 node takes'} its tasks; the "
            f"others stay pending; {_fewer(number)}"
        )


def _takes_tasks(node: pb.Node) -> bool:
    active = node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE}
    return active and node.status.state != pb.NODE_STATE_DOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A field, what to do about it, and what would be asked without it."""

    field: str
    remedy: str
    ask: asking.Ask


def _too_few_places(ask: asking.Ask, template: pb.TaskTemplate, count: int, empty: fleet.Fleet) -> Iterator[str]:
    found = _places(ask, count, empty)
    if not 0 < found < count:
        return
    told = f"{found} of its {count} replicas find{'s' if found == 1 else ''} a place, even if every node were empty"
    ways = [(_places(way.ask, count, empty), way) for way in _ways(ask, template)]
    most, best = max(ways, key=lambda way: way[0], default=(0, None))
    if best is not None and most > found:
        # Those that are near to each other would be in the same place.
        fewer = _fewer(found) if not ask.near else f"or write `replicas: {found}`"
        yield f"{best.field}: {told}; {best.remedy}, {fewer}"
    else:
        yield f"spec.replicas: {told}; {_fewer(found)}"


def _fewer(replicas: int) -> str:
    return f"write `replicas: {replicas}`, or add nodes" if replicas else "add nodes"


def _ways(ask: asking.Ask, template: pb.TaskTemplate) -> Iterator[_Way]:
    """What may stand in the way of a task, in the order in which it is told when several do."""
    placement = template.placement
    for field, listed, without in (
        ("near", placement.near, replace(ask, near=())),
        ("apart", placement.apart, replace(ask, apart=())),
    ):
        for index, one in enumerate(listed):
            if one.service == ask.service and not one.weight:
                yield _Way(field=f"{_PLACEMENT}.{field}[{index}]", remedy="give it a weight", ask=without)
    for index, spread in enumerate(placement.spread):
        if spread.max_skew:
            left = [(by, skew) for by, skew in ask.spread if by != spread.by]
            remedy = "write a greater maxSkew"
            yield _Way(field=f"{_PLACEMENT}.spread[{index}].maxSkew", remedy=remedy, ask=replace(ask, spread=left))
    if ask.max_per_node:
        without = replace(ask, max_per_node=0)
        yield _Way(field=f"{_PLACEMENT}.maxPerNode", remedy="let a node have more", ask=without)
    demand = ask.demand
    without_each = (
        replace(demand, cpu=0),
        replace(demand, memory=0),
        replace(demand, pids=0),
        replace(demand, disk=0),
    )
    for name, without_it in zip(_AMOUNTS, without_each, strict=True):
        if without_it != demand:
            yield _reserve_less(ask, _reserving(template, name), without_it)
    for name in demand.generic:
        generic = {other: count for other, count in demand.generic.items() if other != name}
        yield _reserve_less(ask, _reserving(template, "generic", name), replace(demand, generic=generic))


def _reserve_less(ask: asking.Ask, field: str, demand: Demand) -> _Way:
    return _Way(field=field, remedy="reserve less", ask=replace(ask, demand=demand))


def _places(ask: asking.Ask, count: int, empty: fleet.Fleet) -> int:
    """How many of so many tasks the scheduler would place on the empty nodes."""
    room = np.where(filters.eligible(empty, ask), filters.room(empty, ask), 0)
    if scoring.alone(ask):
        room = np.minimum(room, 1)
    most = min(int(room.sum()), count)
    if not (ask.near or ask.apart or ask.spread):
        return most
    tried = min(most, MOST)
    placed = len(choosing.Chooser(empty, ask, {}, scoring.Strategy.SPREAD).best(tried))
    return placed if placed < tried else most
