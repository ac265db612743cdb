"""What must hold of tasks that are taken away for what can wait: no more at a time than their service can do without.

The rule: only what nobody else can have asked for is judged. The service is rolled out and its status tells of the
present wish, and people have left the node's deadline alone for a moment.
"""

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping

from controlplane.core import tasks
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.violation import Violation
from tests.support import fake_agent

Objects = Mapping[str, kinds.StoredObject]
FRESH_S = 1.0
"""The leader may not have seen yet what people did so shortly before."""


class DisruptionRules:
    """Follows every change.

    After the deadline of a drain everything may be taken: that is what a deadline is for, and `drain_troubles` asks
    that it was. Before it the rules hold as they do without one. By whose clock it has passed is the leader's to say;
    so it is judged by the clock that was furthest ahead so far, because what a leader decided may be committed after
    its clock was set back.
    """

    def __init__(self) -> None:
        self._moved_s: dict[str, float] = {}
        self._ahead_ms = 0

    def note_clock(self, skew_ms: int) -> None:
        """The clock of a control plane is so far ahead now."""
        self._ahead_ms = max(self._ahead_ms, skew_ms)

    def check(self, objects: Objects, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Called with each change, before it is among the objects. Raises Violation."""
        match after:
            case pb.Node() if isinstance(before, pb.Node) and before.spec.drain_deadline != after.spec.drain_deadline:
                self._moved_s[after.meta.id] = asyncio.get_running_loop().time()
            case pb.Task() if isinstance(before, pb.Task) and tasks.is_ready(before) and _is_told(before, after):
                self._check_taken(objects, before, preempted=after.status.reason == "Preempted")
            case _:
                pass

    def _check_taken(self, objects: Objects, task: pb.Task, *, preempted: bool) -> None:
        node = next((one for one in objects.values() if isinstance(one, pb.Node) and one.meta.id == task.node_id), None)
        service = objects.get(f"/orch/service/{task.meta.namespace}/{task.service}")
        if node is None or not isinstance(service, pb.Service) or not _is_quiet(service):
            return
        drained = node.spec.availability == pb.AVAILABILITY_DRAIN and not self._may_be_overdue(node)
        if not preempted and not drained:
            return
        left = _working(objects.values(), task)
        del left[task.meta.id]
        if task.slot in left.values():
            return
        if drained and not preempted and not _stops_first(service.spec):
            raise Violation("nothing is lost", f"task {task.meta.id} left a drained node before another worked")
        if preempted and not _has_limit(service):
            self._check_alone(objects, task, set(left.values()))
            return
        least = _least(service)
        if len(set(left.values())) < least:
            text = f"task {task.meta.id} was taken away: {len(set(left.values()))} work, {least} have to"
            raise Violation("disruption", text)

    def _check_alone(self, objects: Objects, task: pb.Task, working: Collection[int]) -> None:
        """Who has said nothing misses one at a time; what waits for a node is not missed."""
        placed = {one.slot for one in _members(objects.values(), task) if one.node_id}
        if missing := placed - {*working, task.slot}:
            text = f"task {task.meta.id} was taken away, and {sorted(missing)} do not work"
            raise Violation("disruption", text)

    def _may_be_overdue(self, node: pb.Node) -> bool:
        fresh = asyncio.get_running_loop().time() - self._moved_s.get(node.meta.id, -math.inf) < FRESH_S
        deadline = node.spec.drain_deadline
        return fresh or (deadline > 0 and deadline <= fake_agent.loop_ms() + self._ahead_ms)


def _is_told(before: pb.Task, after: pb.Task) -> bool:
    return before.desired_state < after.desired_state == pb.DESIRED_STATE_SHUTDOWN


def _stops_first(spec: pb.ServiceSpec) -> bool:
    return spec.update.order == pb.UPDATE_ORDER_STOP_FIRST or spec.on_node_loss.fence


def _is_quiet(service: pb.Service) -> bool:
    return (
        service.spec.mode != pb.SERVICE_MODE_GLOBAL
        and not service.meta.deleted_at
        and service.status.observed_generation == service.meta.generation
        and service.status.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    )


def _working(objects: Collection[kinds.StoredObject], task: pb.Task) -> dict[str, int]:
    """The slots of the ready tasks of its service, by id."""
    return {one.meta.id: one.slot for one in _members(objects, task) if tasks.is_ready(one)}


def _members(objects: Collection[kinds.StoredObject], task: pb.Task) -> Iterator[pb.Task]:
    """The tasks of its service that have not ended."""
    for one in objects:
        if not isinstance(one, pb.Task) or states.is_terminal(one.status.state):
            continue
        if (one.meta.namespace, one.service) == (task.meta.namespace, task.service):
            yield one


def _has_limit(service: pb.Service) -> bool:
    return bool(service.spec.disruption.min_available or service.spec.disruption.max_unavailable)


def _least(service: pb.Service) -> int:
    """How many have to work. People say numbers or halves."""
    policy, wanted = service.spec.disruption, service.spec.replicas
    if policy.min_available:
        return math.ceil(wanted / 2) if policy.min_available == "50%" else int(policy.min_available)
    missing = wanted // 2 if policy.max_unavailable == "50%" else int(policy.max_unavailable or 1)
    return wanted - missing


def drain_troubles(
    nodes: Collection[pb.Node], everywhere: Collection[pb.Task], name: str, *, must_be_empty: bool
) -> list[str]:
    """What is wrong with a node that has been drained for a while, and with what is told of it."""
    node = next(one for one in nodes if one.meta.name == name)
    left = [one for one in everywhere if one.node_id == node.meta.id and not states.is_terminal(one.status.state)]
    told, wrong = node.status.drain, []
    if (told.observed_generation, told.left) != (node.meta.generation, len(left)):
        wrong.append(f"node {name} is said to have {told.left} tasks left, and has {len(left)}: {told.message}")
    if must_be_empty and left:
        wrong.append(f"{left[0].meta.id} is on node {name} after the deadline: {told.message}")
    return wrong
