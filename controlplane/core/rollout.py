"""How a new revision takes the place of an old one: where a rollout stands, and what it leads to next.

Two rules. The spec is the user's: a rollback changes the rollout's status, never the spec. And what is remembered is
only what cannot be read off the tasks (when it began, when it got further, what has failed), so that a new leader
continues exactly.

                       ┌────────── pause, or too many failures ──────────┐
                       │  ┌───────────── resume ──────────────┐          │
    begin ──► ROLLING ─┴──┤                                   └─ PAUSED ◄┘
                │  ▲      ├── canary is there ──► WAITING ── promote ──► ROLLING
                │  └──────┤
                │         └── abort, or too many failures with `onFailure: rollback` ──► ROLLING_BACK ──► ROLLED_BACK
                └── every task replaced, and none failed for `monitor` ──► COMPLETED

Another template leads to ROLLING from everywhere. What was rolled back stays so until then, and a rollback is not
judged: it never rolls back again.
"""

from collections.abc import Sequence

from controlplane.core import plan, slots, tasks, update_policy
from protos import states, units
from protos.orch.v1 import objects_pb2 as pb

ROLLING = pb.ROLLOUT_STATE_ROLLING
PAUSED = pb.ROLLOUT_STATE_PAUSED
WAITING = pb.ROLLOUT_STATE_WAITING
ROLLING_BACK = pb.ROLLOUT_STATE_ROLLING_BACK
ROLLED_BACK = pb.ROLLOUT_STATE_ROLLED_BACK
COMPLETED = pb.ROLLOUT_STATE_COMPLETED

BACKWARDS = frozenset({ROLLING_BACK, ROLLED_BACK})
UNDECIDED = frozenset({ROLLING, PAUSED, WAITING})


def goal_id(status: pb.RolloutStatus) -> str:
    """The revision that tasks are to have: the one that goes in, or the last good one after it was refused."""
    return status.stable_revision_id if status.state in BACKWARDS else status.revision_id


def is_first(status: pb.RolloutStatus, members: Sequence[slots.Slot]) -> bool:
    """There is nothing that it replaces and could be taken back: its tasks are simply tried again."""
    return not status.stable_revision_id and not any(slot.old for slot in members)


# Where it stands ------------------------------------------------------------------------------------------------------


def follow(service: pb.Service, target_id: str, now_ms: int) -> pb.RolloutStatus:
    """The status after what people have said: another template, pause, resume and abort."""
    control, status = service.spec.rollout, plan.copy(service.status.rollout)
    if status.revision_id != target_id:
        status = _begin(service, target_id, now_ms)
    if is_refused(status, control) and status.state not in BACKWARDS:
        status.state = ROLLING_BACK
        status.reason = "it was aborted"
    if control.resumed_at != status.resumed_at:
        status.resumed_at = control.resumed_at
        if status.state == PAUSED:
            _resume(status, now_ms)
    if control.paused and status.state in {ROLLING, WAITING}:
        status.state = PAUSED
    if not control.paused and status.state == PAUSED and not status.reason:
        _resume(status, now_ms)
    if status.state == WAITING and control.promoted_revision_id == target_id:
        _resume(status, now_ms)
    return status


def is_refused(status: pb.RolloutStatus, control: pb.RolloutControl) -> bool:
    """It was turned back, or was aborted a moment ago and the leader is about to do so."""
    aborted = control.aborted_revision_id == status.revision_id and status.state in UNDECIDED
    return status.state in BACKWARDS or (aborted and can_go_back(status))


def can_go_back(status: pb.RolloutStatus) -> bool:
    """There is a good revision, and it is another one."""
    return status.stable_revision_id not in {"", status.revision_id}


def _begin(service: pb.Service, target_id: str, now_ms: int) -> pb.RolloutStatus:
    before = service.status
    # What stood there in good order a moment ago is good, even if it was not watched to the end. Nothing stands for
    # nothing: without tasks a revision has not shown what it is worth.
    good = before.revision_id if before.settled and before.ready else before.rollout.stable_revision_id
    return pb.RolloutStatus(
        state=ROLLING,
        revision_id=target_id,
        stable_revision_id=good,
        began_at=now_ms,
        progressed_at=now_ms,
        counted_from=now_ms,
        resumed_at=service.spec.rollout.resumed_at,
    )


def _resume(status: pb.RolloutStatus, now_ms: int) -> None:
    """What had failed before counts no more, and the deadline counts from now."""
    if status.reason:
        status.counted_from = now_ms
        status.failed = 0
    status.state = ROLLING
    status.reason = ""
    status.progressed_at = now_ms


def judge(
    status: pb.RolloutStatus,
    policy: update_policy.Policy,
    control: pb.RolloutControl,
    members: Sequence[slots.Slot],
    goal: pb.Revision,
    now_ms: int,
) -> tuple[pb.RolloutStatus, int | None]:
    """The status after what the tasks show, and when to look again even if nothing happens."""
    after = plan.copy(status)
    good = sum(is_good(slot, goal) for slot in members)
    whole = good == len(members) and not any(slot.old and not slot.place.held for slot in members)
    if status.state == ROLLING_BACK and whole:
        after.state = ROLLED_BACK
    if status.state not in {ROLLING, WAITING}:
        return after, None
    first, goes_on = is_first(status, members), policy.on_failure == pb.UPDATE_FAILURE_ACTION_CONTINUE
    # What is not judged is watched from when it is whole: a task that crashes again and again was ready in between.
    after.replaced = min(status.replaced, good if first else len(members))
    if good > after.replaced:
        after.replaced = good
        after.progressed_at = now_ms
    troubles = _failures(status, policy, members)
    after.failed = max(len(troubles), status.failed)
    if not first and not goes_on and policy.is_failure(after.failed, len(members)):
        why = f"; {troubles[0]}" if troubles else ""
        _fail(after, policy, f"{after.failed} of {len(members)} tasks failed{why}")
    elif whole and (members or after.state == ROLLING):
        return _finish(after, policy, now_ms, at_once=not members)
    elif after.state == WAITING and members and not any(map(slots.has_new, members)):
        after.state, after.progressed_at = ROLLING, now_ms  # the canary was stopped with its service
    elif _canary_is_there(after, policy, control, members):
        after.state = WAITING
    elif after.state == ROLLING and not first and not goes_on:
        return _check_deadline(after, policy, now_ms)
    return after, None


def is_good(slot: slots.Slot, goal: pb.Revision) -> bool:
    """There is nothing more to do for this place."""
    if slot.place.held:
        return True
    return slot.new_works or slots.is_done(slot, goal)


def _finish(
    status: pb.RolloutStatus, policy: update_policy.Policy, now_ms: int, *, at_once: bool
) -> tuple[pb.RolloutStatus, int | None]:
    """`at_once`: there are no tasks to watch, and none that show that it is good."""
    watched_until = status.progressed_at + policy.monitor_ms
    if now_ms < watched_until and not at_once:
        status.state = ROLLING
        return status, watched_until
    status.state = COMPLETED
    if not at_once:
        status.stable_revision_id = status.revision_id
    return status, None


def _check_deadline(
    status: pb.RolloutStatus, policy: update_policy.Policy, now_ms: int
) -> tuple[pb.RolloutStatus, int | None]:
    deadline = status.progressed_at + policy.delay_ms + policy.deadline_ms
    if now_ms < deadline:
        return status, deadline
    _fail(status, policy, f"no further task became ready for {units.format_duration(policy.deadline_ms)}")
    return status, None


def _fail(status: pb.RolloutStatus, policy: update_policy.Policy, reason: str) -> None:
    match policy.on_failure:
        case pb.UPDATE_FAILURE_ACTION_ROLLBACK if can_go_back(status):
            status.state = ROLLING_BACK
        case pb.UPDATE_FAILURE_ACTION_ROLLBACK:
            status.state = PAUSED
            reason += "; no good revision before it is known"
        case _:
            status.state = PAUSED
    status.reason = reason


def _failures(status: pb.RolloutStatus, policy: update_policy.Policy, members: Sequence[slots.Slot]) -> list[str]:
    """What went wrong in each slot where a task of the new revision failed in this rollout."""
    found = []
    for slot in members:
        bad = [task for task in slot.members if task.revision_id == status.revision_id]
        bad = [task for task in bad if task.meta.created_at >= status.counted_from and _has_failed(task, policy)]
        worst = tasks.newest(bad)
        if worst is not None:
            found.append(f"{worst.meta.name}: {_what_happened(worst.status)}")
    return found


def _what_happened(status: pb.TaskStatus) -> str:
    """In words; a container that was restarted may run again, and have nothing to say."""
    if status.message:
        return status.message
    return f"ended with exit code {status.exit_code}" if status.HasField("exit_code") else "was restarted"


def _has_failed(task: pb.Task, policy: update_policy.Policy) -> bool:
    """It could not be prepared, or did not stand `monitor` after its start."""
    status = task.status
    if status.state == states.REJECTED or (status.state == states.FAILED and not status.started_at):
        return True
    if status.restarts:
        return status.first_run <= policy.monitor_ms
    return status.state == states.FAILED and status.finished_at - status.started_at <= policy.monitor_ms


def _canary_is_there(
    status: pb.RolloutStatus, policy: update_policy.Policy, control: pb.RolloutControl, members: Sequence[slots.Slot]
) -> bool:
    """So many tasks as the canary has work, and others are still of an older revision."""
    if not policy.canary or status.state != ROLLING or not can_go_back(status):
        return False
    if control.promoted_revision_id == status.revision_id or not any(slot.old for slot in members):
        return False
    return sum(slot.new_works for slot in members) >= policy.canary


# In words -------------------------------------------------------------------------------------------------------------


def sentence(status: pb.RolloutStatus, goal: pb.Revision, target: pb.Revision, number: int) -> str:
    """Such as `updating to revision 4: 1 of 3 replaced`."""
    news, share = f"revision {target.number}", f"{min(status.replaced, number)} of {number} replaced"
    failed = f", {status.failed} failed" if status.failed else ""
    match status.state:
        case pb.ROLLOUT_STATE_PAUSED if status.reason:
            return f"the update to {news} has failed and is paused: {share}: {status.reason}"
        case pb.ROLLOUT_STATE_PAUSED:
            return f"the update to {news} is paused: {share}"
        case pb.ROLLOUT_STATE_WAITING:
            return f"the update to {news} waits to be promoted: {share}"
        case pb.ROLLOUT_STATE_ROLLING_BACK:
            return f"going back from {news} to revision {goal.number}: {status.reason}"
        case pb.ROLLOUT_STATE_ROLLED_BACK:
            return f"rolled back from {news} to revision {goal.number}: {status.reason}"
        case pb.ROLLOUT_STATE_COMPLETED:
            return f"{news} is rolled out"
        case _ if target.number == 1 and not status.stable_revision_id:
            return f"starting {news}: {min(status.replaced, number)} of {number} ready"
        case _:
            return f"updating to {news}: {share}{failed}"
