"""What must hold of where tasks are: nodes have room, and hard rules held at the moment at which a task was placed.

What a person changes, the leader may see late. So what depends on the spec of nodes and services is not held against
the leader while such a change is fresh; what depends on tasks alone always is, since the leader writes those itself.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from controlplane.core import demand, preemption
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import crowd_rules, zones
from tests.sim.violation import Violation

FRESH_S = 30.0
"""How long a person's change may be unknown to the leader: watches stand still for up to twelve seconds."""
RULE = "placement"


class State(Protocol):
    """What is stored."""

    def nodes(self) -> list[pb.Node]:
        """All nodes."""
        ...

    def tasks(self) -> list[pb.Task]:
        """All tasks."""
        ...

    def services(self) -> list[pb.Service]:
        """All services."""
        ...

    def templates(self) -> Mapping[str, pb.TaskTemplate]:
        """What revisions say of tasks, by the revision's id."""
        ...


class PlacementRules:
    """Looks at each task that is given a node, or that makes way."""

    def __init__(self) -> None:
        self._changed_s: dict[str, float] = {}  # when, by the object's id

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """A person has changed something that placement depends on."""
        if isinstance(after, pb.Node | pb.Service):
            same = isinstance(before, pb.Node | pb.Service) and before.meta.generation == after.meta.generation
            same = same or (before is None and isinstance(after, pb.Node))  # the leader makes nodes
            if not same:
                self._changed_s[after.meta.id] = asyncio.get_running_loop().time()

    def check(self, before: pb.Task, after: pb.Task, state: State) -> None:
        """Raises Violation. `state` is what was stored before."""
        if after.status.reason == preemption.REASON != before.status.reason and not any(
            map(self._is_fresh, state.services())
        ):
            _check_victim(after, state)
        if after.node_id and not before.node_id:
            nodes = {one.meta.id: one for one in state.nodes()}
            if after.node_id in nodes:
                self._check_given(after, nodes, state)

    def _check_given(self, after: pb.Task, nodes: Mapping[str, pb.Node], state: State) -> None:
        node, template = nodes[after.node_id], state.templates()[after.revision_id]
        mine = [
            one for one in state.tasks() if (one.meta.namespace, one.service) == (after.meta.namespace, after.service)
        ]
        here = [one for one in mine if one.node_id == node.meta.id and not states.is_terminal(one.status.state)]
        _check_own(after, template, here)
        _require(after.target_node_id in {"", node.meta.id}, f"{after.meta.id} belongs to node {after.target_node_id}")
        if not self._is_fresh(node):
            _check_node(after, template, node)
        counts = _by_zone(mine, nodes)
        _check_even(after, template, node, counts, [one for one in nodes.values() if not self._is_fresh(one)])

    def _is_fresh(self, one: pb.Node | pb.Service) -> bool:
        """Nodes are changed by hand once in a while, all but the last one never after they joined."""
        return asyncio.get_running_loop().time() - self._changed_s.get(one.meta.id, -math.inf) < FRESH_S


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise Violation(RULE, text)


def _check_own(task: pb.Task, template: pb.TaskTemplate, here: Sequence[pb.Task]) -> None:
    wishes = template.placement
    alone = any(not one.weight and one.service == task.service for one in wishes.apart)
    _require(not (alone and here), f"{task.meta.id} has to be apart from {[one.meta.id for one in here]}")
    most = wishes.max_per_node or math.inf
    _require(len(here) < most, f"{task.meta.id} is one too many on its node, which has {[one.meta.id for one in here]}")


def _check_node(task: pb.Task, template: pb.TaskTemplate, node: pb.Node) -> None:
    _require(_suits(template, node), f"{task.meta.id} was given to {node.meta.name}, which does not suit it")


def _suits(template: pb.TaskTemplate, node: pb.Node) -> bool:
    wishes = template.placement
    refused = [one for one in node.spec.taints if one.effect != pb.TAINT_EFFECT_PREFER_NO_SCHEDULE]
    return (
        zones.suits(wishes, node)
        and (not refused or any(one.key == "spare" for one in wishes.tolerations))
        and node.spec.availability == pb.AVAILABILITY_ACTIVE
    )


def _by_zone(tasks: Iterable[pb.Task], nodes: Mapping[str, pb.Node]) -> Counter[str]:
    """How many of the tasks are in each zone, and to stay there."""
    return Counter(
        zones.of(nodes[one.node_id])
        for one in tasks
        if one.node_id in nodes
        and one.desired_state <= pb.DESIRED_STATE_RUNNING
        and not states.is_terminal(one.status.state)
    )


def _check_even(
    task: pb.Task, template: pb.TaskTemplate, node: pb.Node, counts: Counter[str], known: Sequence[pb.Node]
) -> None:
    """`known`: the nodes that the leader knows as they are; in a part that has none of them there may be more of its
    tasks than are counted here, which only makes the leader stricter.
    """
    skew = next((one.max_skew for one in template.placement.spread), 0)
    if not skew:
        return
    able = [one for one in known if one.status.state == pb.NODE_STATE_READY and _suits(template, one)]
    if not able:
        return  # no part is known for sure
    least = min(counts[zones.of(one)] for one in able)
    zone = zones.of(node)
    text = f"{task.meta.id} makes {counts[zone] + 1} in zone {zone}; the emptiest has {least}, maxSkew is {skew}"
    _require(counts[zone] + 1 - least <= skew, text)


def _check_victim(victim: pb.Task, state: State) -> None:
    priority = {(one.meta.namespace, one.meta.name): one.spec.priority for one in state.services()}
    waiting = [one for one in state.tasks() if not one.node_id and not states.is_terminal(one.status.state)]
    mine = priority.get((victim.meta.namespace, victim.service), 0)
    higher = [one for one in waiting if priority.get((one.meta.namespace, one.service), 0) > mine]
    _require(bool(higher), f"{victim.meta.id} makes way, and nobody of a higher priority waits")


def check_capacity(
    nodes: Sequence[pb.Node], alive: Sequence[pb.Task], templates: Mapping[str, pb.TaskTemplate]
) -> None:
    """No node over what it has, and nothing of it given twice."""
    for node in nodes:
        here = [task for task in alive if task.node_id == node.meta.id]
        used = [templates[task.revision_id] for task in here]
        taken = [demand.of(one) for one in used]
        capacity, name = node.status.description.capacity, node.meta.name
        for what in ("cpu", "memory", "pids", "disk"):
            if sum(crowd_rules.reserved(one, what) for one in used) > getattr(capacity, what):
                raise Violation("capacity", f"node {name} was given more {what} than it has")
        if len(here) > capacity.tasks:
            raise Violation("capacity", f"node {name} was given {len(here)} tasks and takes {capacity.tasks}")
        ports = Counter(port for one in taken for port in one.ports)
        ids = Counter((kind, each) for task in here for kind, granted in task.granted.items() for each in granted.ids)
        for what, count in (ports + ids).items():
            if count > 1:
                raise Violation("nothing is given twice", f"node {name}: {what} was given {count} times")
        for task, one in zip(here, taken, strict=True):
            granted_ids = [each for granted in task.granted.values() for each in granted.ids]
            if len(granted_ids) != sum(one.generic.values()) or not set(granted_ids) <= {"0"}:
                raise Violation("capacity", f"{task.meta.id} asked for {one.generic} and was granted {granted_ids}")
