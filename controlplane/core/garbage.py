"""What may go: records of tasks that nobody asks about any more, and revisions that no task runs."""

from collections.abc import Collection

from controlplane.core import places, plan, revisions, slots
from protos import states
from protos.orch.v1 import objects_pb2 as pb

KEPT_PER_SLOT = 3
"""Ended tasks that are kept in each slot, so that people can look at their last words."""


def collect(members: Collection[pb.Task], known: Collection[pb.Revision], service: pb.Service | None) -> plan.Plan:
    """Removals among the tasks and revisions of one service, which is None when it is gone."""
    doomed = [task for slot in places.by_key(members).values() for task in _doomed(slot)]
    changes: list[plan.Change] = [plan.Remove(value=task, why="ended, and not wanted any more") for task in doomed]
    gone = {task.meta.id for task in doomed}
    in_use = {task.revision_id for task in members if task.meta.id not in gone}
    if service is not None:
        changes += revisions.outdated(service, known, in_use)
    elif not in_use:
        changes += [plan.Remove(value=revision, why="its service is gone") for revision in known]
    return plan.Plan(changes=tuple(changes))


def _doomed(members: Collection[pb.Task]) -> list[pb.Task]:
    ended = slots.sort_out(places.Place(), list(members), "").ended
    unwanted = [task for task in ended if task.desired_state == pb.DESIRED_STATE_REMOVE]
    kept = [task for task in ended if task.desired_state != pb.DESIRED_STATE_REMOVE]
    return unwanted + kept[KEPT_PER_SLOT:]


def end_as_orphan(task: pb.Task, why: str, now_ms: int) -> plan.Write:
    """The task counts as lost; if its node comes back, it is stopped there."""
    states.check(task.status.state, states.ORPHANED, states.Owner.NODES)
    changed = plan.copy(task)
    changed.status.state = states.ORPHANED
    changed.status.at = now_ms
    changed.status.ready = False
    changed.status.reason = "NodeLost"
    changed.status.message = why
    return plan.Write(value=changed, why=why)
