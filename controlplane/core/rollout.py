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
                ├── it can go neither further nor back ──► FAILED ── they all work after all ──┐
                └── every task replaced, and none failed for `monitor` ────────────────────────┴─► COMPLETED

Another template leads to ROLLING from everywhere, `resume` and `abort` from FAILED as from PAUSED. What was rolled back
stays so until then, and a rollback is not judged: it never rolls back again.

A first revision that fails has nothing to go back to, and a rollout that no failure stops goes to its end without what
has failed (`rollout_failures`): both have FAILED then, and are tried further.
"""

from collections.abc import Collection, Sequence

from controlplane.core import places, plan, rollout_failures, slots, update_policy
from protos import units
from protos.orch.v1 import objects_pb2 as pb

ROLLING = pb.ROLLOUT_STATE_ROLLING
PAUSED = pb.ROLLOUT_STATE_PAUSED
WAITING = pb.ROLLOUT_STATE_WAITING
ROLLING_BACK = pb.ROLLOUT_STATE_ROLLING_BACK
ROLLED_BACK = pb.ROLLOUT_STATE_ROLLED_BACK
COMPLETED = pb.ROLLOUT_STATE_COMPLETED
FAILED = pb.ROLLOUT_STATE_FAILED

BACKWARDS = frozenset({ROLLING_BACK, ROLLED_BACK})
UNDECIDED = frozenset({ROLLING, PAUSED, WAITING, FAILED})
STOPPED = frozenset({PAUSED, FAILED})
"""`resume` tries these again."""


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
        if status.state in STOPPED:
            _resume(status, now_ms)
    if control.paused and status.state in {ROLLING, WAITING, FAILED}:
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
    good = sum(slots.is_good(slot, goal) for slot in members)
    whole = good == len(members) and not any(slot.old and not slot.place.held for slot in members)
    if status.state == ROLLING_BACK and whole:
        after.state = ROLLED_BACK
    if status.state not in {ROLLING, WAITING, FAILED}:
        return after, None
    first = is_first(status, members)
    case = rollout_failures.Case(status=status, policy=policy, goal=goal, now_ms=now_ms)
    why = _count(after, case, members, good if first or policy.goes_on else len(members), good)
    given_up = case.given_up(members)
    if after.state != FAILED and not policy.goes_on and policy.is_failure(after.failed, len(members)):
        _fail(after, policy, why, first=first)
    elif whole and (members or after.state != WAITING):
        return _finish(after, policy, now_ms, at_once=not members)
    elif after.state == WAITING and members and not any(map(slots.has_new, members)) and not given_up:
        after.state, after.progressed_at = ROLLING, now_ms  # the canary was stopped with its service
    elif _canary_is_there(after, case, control, members, given_up):
        after.state = WAITING
    elif policy.goes_on:
        if after.state == ROLLING and good + len(given_up) == len(members):
            after.state, after.reason = FAILED, why
        return after, case.overdue_at(members)
    elif after.state == ROLLING:
        return _check_deadline(after, policy, now_ms, first=first)
    return after, None


def _count(
    status: pb.RolloutStatus, case: rollout_failures.Case, members: Sequence[slots.Slot], most: int, good: int
) -> str:
    """Writes down how many of the members are good and how many have failed, and says the latter in words.

    `most`: what was good before counts no further than that. What no failure stops is watched from when it is whole,
    since a task that crashes again and again was ready in between.
    """
    failed = [task for slot in members if (task := case.last_of(slot)) is not None]
    status.replaced = min(status.replaced, most)
    further = good > status.replaced or (case.policy.goes_on and len(failed) > status.failed)
    if further:
        status.progressed_at = case.now_ms
    status.replaced = max(status.replaced, good)
    status.failed = max(status.failed, len(failed))
    told = case.words(failed)
    return f"{status.failed} of {len(members)} tasks failed{f'; {told}' if told else ''}"


def _finish(
    status: pb.RolloutStatus, policy: update_policy.Policy, now_ms: int, *, at_once: bool
) -> tuple[pb.RolloutStatus, int | None]:
    """`at_once`: there are no tasks to watch, and none that show that it is good."""
    watched_until = status.progressed_at + policy.monitor_ms
    if now_ms < watched_until and not at_once:
        status.state = FAILED if status.state == FAILED else ROLLING
        return status, watched_until
    status.state = COMPLETED
    status.reason = ""
    if not at_once:
        status.stable_revision_id = status.revision_id
    return status, None


def _check_deadline(
    status: pb.RolloutStatus, policy: update_policy.Policy, now_ms: int, *, first: bool
) -> tuple[pb.RolloutStatus, int | None]:
    deadline = status.progressed_at + policy.delay_ms + policy.deadline_ms
    if now_ms < deadline:
        return status, deadline
    _fail(status, policy, f"no further task became ready for {units.format_duration(policy.deadline_ms)}", first=first)
    return status, None


def _fail(status: pb.RolloutStatus, policy: update_policy.Policy, reason: str, *, first: bool) -> None:
    match policy.on_failure:
        case _ if first:
            status.state = FAILED
        case pb.UPDATE_FAILURE_ACTION_ROLLBACK if can_go_back(status):
            status.state = ROLLING_BACK
        case pb.UPDATE_FAILURE_ACTION_ROLLBACK:
            status.state = PAUSED
            reason += "; no good revision before it is known"
        case _:
            status.state = PAUSED
    status.reason = reason


def _canary_is_there(
    status: pb.RolloutStatus,
    case: rollout_failures.Case,
    control: pb.RolloutControl,
    members: Sequence[slots.Slot],
    given_up: Collection[places.Key],
) -> bool:
    """So many tasks as the canary has work, have done their work, or have failed where that stops nothing; and others
    are still of an older revision, or have done their work as such.
    """
    canary = case.policy.canary
    if not canary or status.state != ROLLING or not can_go_back(status):
        return False
    if control.promoted_revision_id == status.revision_id or not any(map(slots.lacks_new, members)):
        return False
    there = sum(slot.new_works or slots.is_done(slot, case.goal) for slot in members)
    return there + len(given_up) >= canary


# In words -------------------------------------------------------------------------------------------------------------


def sentence(status: pb.RolloutStatus, goal: pb.Revision, target: pb.Revision, number: int) -> str:
    """Such as `updating to revision 4: 1 of 3 replaced`."""
    news, done = f"revision {target.number}", f"{min(status.replaced, number)} of {number}"
    share, failed = f"{done} replaced", f", {status.failed} failed" if status.failed else ""
    match status.state:
        case pb.ROLLOUT_STATE_PAUSED if status.reason:
            return f"the update to {news} has failed and is paused: {share}: {status.reason}"
        case pb.ROLLOUT_STATE_PAUSED:
            return f"the update to {news} is paused: {share}"
        case pb.ROLLOUT_STATE_WAITING:
            return f"the update to {news} waits to be promoted: {share}{failed}"
        case pb.ROLLOUT_STATE_ROLLING_BACK:
            return f"going back from {news} to revision {goal.number}: {status.reason}"
        case pb.ROLLOUT_STATE_ROLLED_BACK:
            return f"rolled back from {news} to revision {goal.number}: {status.reason}"
        case pb.ROLLOUT_STATE_FAILED if status.stable_revision_id:
            return f"the update to {news} went through and has failed: {share}: {status.reason}; {_TRIED_FURTHER}"
        case pb.ROLLOUT_STATE_FAILED:
            return f"{news} has failed: {done} ready: {status.reason}; {_TRIED_FURTHER}"
        case pb.ROLLOUT_STATE_COMPLETED:
            failed = f"; {status.failed} of its tasks failed on the way" if status.failed else ""
            return f"{news} is rolled out{failed}"
        case _ if target.number == 1 and not status.stable_revision_id:
            return f"starting {news}: {done} ready"
        case _:
            return f"updating to {news}: {share}{failed}"


_TRIED_FURTHER = "what failed is tried further"
