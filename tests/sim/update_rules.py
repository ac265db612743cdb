"""What must hold of updates: by their doing no more tasks are missing at a time than the policy allows, and where the
old ones are to stay until every new one works (blue/green), they do.

The rule: a commit is judged as a whole, by what is stored after it. The first one that follows a person's wish makes
the revision, tells old tasks to stop and says in the status which generation it has seen, all at once.

Only services with a number of replicas are judged here: which nodes a global one is to be on, the leader may see late.
"""

import asyncio
import math
from collections.abc import Collection, Mapping

from controlplane.core import demand, preemption, tasks
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import particulars
from tests.sim.violation import Violation

Objects = Mapping[str, kinds.StoredObject]
MISSING, BLUE_AND_GREEN = "no more is missing", "blue stays until all is green"

FRESH_S = 30.0
"""How long the leader may not know what people have said of a node."""

_UNDECIDED = frozenset({pb.ROLLOUT_STATE_ROLLING, pb.ROLLOUT_STATE_PAUSED, pb.ROLLOUT_STATE_WAITING})


class UpdateRules:
    """Follows every commit."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], list[pb.Task]] = {}
        """The tasks that did their work and are told to stop in this commit, by namespace and service."""
        self._changed_s: dict[str, float] = {}
        """When people last changed what a node is for."""

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Takes in one change of a commit."""
        if isinstance(after, pb.Node) and isinstance(before, pb.Node) and before.spec != after.spec:
            self._changed_s[after.meta.id] = asyncio.get_running_loop().time()
        if not isinstance(before, pb.Task) or not isinstance(after, pb.Task) or not tasks.is_ready(before):
            return
        if before.desired_state < after.desired_state == pb.DESIRED_STATE_SHUTDOWN:
            self._told.setdefault((after.meta.namespace, after.service), []).append(after)

    def check(self, objects: Objects) -> None:
        """The commit is through. `objects`: what is stored after it. Raises Violation."""
        everything_told, self._told = self._told, {}
        for (namespace, name), told in everything_told.items():
            service = objects.get(f"/orch/service/{namespace}/{name}")
            if not isinstance(service, pb.Service) or not _is_judged(service):
                continue
            by_update = [task for task in told if not self._is_taken_by_others(objects, task)]
            template = objects.get(f"/orch/revision/{namespace}/{goal_of(service.status.rollout)}")
            if not by_update or not isinstance(template, pb.Revision):
                continue
            members = [
                one
                for one in objects.values()
                if isinstance(one, pb.Task) and (one.meta.namespace, one.service) == (namespace, name)
            ]
            _check_missing(service, template.template, members, by_update)
            if _is_blue_and_green(service, template.template):
                _check_together(service, template, members, by_update)

    def _is_taken_by_others(self, objects: Objects, task: pb.Task) -> bool:
        """It makes way for another service's, or leaves its node because of what people say of that."""
        if task.status.reason == preemption.REASON:
            return True
        node = next((one for one in objects.values() if isinstance(one, pb.Node) and one.meta.id == task.node_id), None)
        if node is None or node.spec.taints or node.spec.availability == pb.AVAILABILITY_DRAIN:
            return True
        return asyncio.get_running_loop().time() - self._changed_s.get(task.node_id, -math.inf) < FRESH_S


def goal_of(status: pb.RolloutStatus) -> str:
    """The id of the revision that tasks are to have."""
    backwards = status.state in {pb.ROLLOUT_STATE_ROLLING_BACK, pb.ROLLOUT_STATE_ROLLED_BACK}
    return status.stable_revision_id if backwards else status.revision_id


def most_beside(spec: pb.ServiceSpec, number: int) -> float:
    """How many of so many tasks may have another beside them. One that stops first is judged by other rules."""
    update = spec.update
    if update.max_surge or update.max_unavailable:
        return _amount(update.max_surge, number, round_up=True)
    parallelism = update.parallelism if update.HasField("parallelism") else 1
    return parallelism or math.inf


def most_missing(spec: pb.ServiceSpec, template: pb.TaskTemplate, number: int) -> float:
    """How many of so many tasks may be missing because of an update to a template, told from the schema's comments."""
    update = spec.update
    if update.max_surge or update.max_unavailable:
        surge = _amount(update.max_surge, number, round_up=True)
        missing = _amount(update.max_unavailable, number, round_up=False)
        return missing if surge or missing else 1  # else nothing could ever go on
    if not _stops_first(spec, template):
        return 0
    parallelism = update.parallelism if update.HasField("parallelism") else 1
    return parallelism or math.inf


def _amount(text: str, number: int, *, round_up: bool) -> int:
    if not text.endswith("%"):
        return int(text or 0)
    part = int(text.removesuffix("%")) * number / 100
    return math.ceil(part) if round_up else math.floor(part)


def _stops_first(spec: pb.ServiceSpec, template: pb.TaskTemplate) -> bool:
    if spec.on_node_loss.fence or spec.update.order == pb.UPDATE_ORDER_STOP_FIRST:
        return True
    taken = demand.of(template)
    return not spec.update.order and bool(taken.ports or taken.generic)


def _is_judged(service: pb.Service) -> bool:
    """The leader has seen the present wish, and what it leads to is stored."""
    return (
        service.spec.mode != pb.SERVICE_MODE_GLOBAL
        and not service.meta.deleted_at
        and service.status.observed_generation == service.meta.generation
    )


def _check_missing(
    service: pb.Service, template: pb.TaskTemplate, members: Collection[pb.Task], told: Collection[pb.Task]
) -> None:
    """What was missing before counts: nothing is taken away then. A slot whose work is done lacks nothing; and one that
    failed where no failure stops an update is nobody's to wait for.
    """
    served = {task.slot for task in members if tasks.is_ready(task)} | particulars.ended_well(members).keys()
    lost = [task.meta.id for task in told if task.slot not in served]
    missing = sum(slot not in served for slot in range(1, service.spec.replicas + 1))
    most = most_missing(service.spec, template, service.spec.replicas) + _left_behind(service)
    if lost and missing > most:
        raise Violation(
            MISSING,
            f"{', '.join(lost)} told to stop: {missing} of {service.spec.replicas} are missing then, {most} may be",
        )


def _left_behind(service: pb.Service) -> int:
    """How many slots an update goes on without, at the most."""
    goes_on = service.spec.update.on_failure == pb.UPDATE_FAILURE_ACTION_CONTINUE
    return service.status.rollout.failed if goes_on else 0


def _is_blue_and_green(service: pb.Service, template: pb.TaskTemplate) -> bool:
    update = service.spec.update
    by_parallelism = update.HasField("parallelism") and not update.parallelism
    return (
        by_parallelism
        and not update.max_surge
        and not update.max_unavailable
        and not _stops_first(service.spec, template)
        and service.status.rollout.state in _UNDECIDED
    )


def _check_together(
    service: pb.Service, goal: pb.Revision, members: Collection[pb.Task], told: Collection[pb.Task]
) -> None:
    blue = {task.slot for task in members if tasks.is_ready(task) and task.revision_id != goal.meta.id}
    left = [task.meta.id for task in told if task.revision_id != goal.meta.id and task.slot not in blue]
    green = {task.slot for task in members if tasks.is_ready(task) and task.revision_id == goal.meta.id}
    green |= {slot for slot, task in particulars.ended_well(members).items() if task.revision_id == goal.meta.id}
    lacking = [slot for slot in range(1, service.spec.replicas + 1) if slot not in green]
    if left and len(lacking) > _left_behind(service):
        text = f"{', '.join(left)} told to stop, and slots {lacking} have no new task that works"
        raise Violation(BLUE_AND_GREEN, text)
