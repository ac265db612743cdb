"""What follows a container's end: another container in its place after a while, or the end of the task.

The first restart is immediate, the following ones wait 1 s × 2ⁿ up to 60 s, less up to a fifth by chance, so that
what crashed together does not return together. A container that lived for a minute was healthy: the waiting begins
anew. One that was ended because of its probes has failed, whatever its exit code is. After `attempts` restarts within
`window` the task is FAILED, and its replacement is the leader's affair.

    attempts 5, crashes at once:  0 s, 1 s, 2 s, 4 s, 8 s, then FAILED
"""

import dataclasses
from typing import TypeVar

from agent.core.record import ContainerRecord, Exit
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from protos.states import State

RecordT = TypeVar("RecordT", bound=ContainerRecord)

HEALTHY_AFTER_MS = 60_000
FIRST_DELAY_MS = 1_000
LONGEST_DELAY_MS = 60_000


def delay_ms(quick_exits: int, jitter: float) -> int:
    """How long to wait before the next container; `jitter` is in [0, 1).

    quick_exits 0 → 0; 1 → 1000; 2 → 2000; 7 and more → 60000; each less up to a fifth.
    """
    assert 0 <= jitter < 1, jitter
    if quick_exits == 0:
        return 0
    full = min(LONGEST_DELAY_MS, FIRST_DELAY_MS << min(quick_exits - 1, 16))
    return int(full * (1 - jitter / 5))


def after_exit(record: RecordT, ended: Exit, policy: pb.RestartPolicy, *, now_ms: int, jitter: float) -> RecordT:
    """The record with the exit noted, and what it leads to: `ending` or `restart_at`."""
    noted = dataclasses.replace(record, exit=ended)
    ending = _ending(policy.condition, well=ended.code == 0 and not record.unhealthy)
    if ending is not None:
        return dataclasses.replace(noted, ending=ending)
    recent = tuple(at for at in record.restart_times if at > now_ms - policy.window)
    if len(recent) >= policy.attempts:
        return dataclasses.replace(noted, ending=states.FAILED, restart_times=recent)
    return _again(noted, recent, now_ms=now_ms, jitter=jitter)


def after_init_exit(record: RecordT, ended: Exit, policy: pb.RestartPolicy, *, now_ms: int, jitter: float) -> RecordT:
    """The same for an init container: it is to end, and well."""
    to_its_end = pb.RestartPolicy(condition=policy.condition, attempts=policy.attempts, window=policy.window)
    if policy.condition != pb.RESTART_CONDITION_NEVER:
        to_its_end.condition = pb.RESTART_CONDITION_ON_FAILURE
    return after_exit(record, ended, to_its_end, now_ms=now_ms, jitter=jitter)


def after_sidecar_exit(record: RecordT, ended: Exit, *, now_ms: int, jitter: float) -> RecordT:
    """The same for a sidecar, which is started again for as long as its task lives."""
    return _again(dataclasses.replace(record, exit=ended), (), now_ms=now_ms, jitter=jitter)


def _again(noted: RecordT, recent: tuple[int, ...], *, now_ms: int, jitter: float) -> RecordT:
    assert noted.exit is not None, "what is started again has ended"
    healthy = noted.started_at and noted.exit.finished_at - noted.started_at >= HEALTHY_AFTER_MS
    quick_exits = 0 if healthy else noted.quick_exits
    return dataclasses.replace(
        noted,
        restart_times=recent,
        quick_exits=quick_exits + 1,
        restart_at=now_ms + delay_ms(quick_exits, jitter),
    )


def restarted(record: RecordT, *, now_ms: int) -> RecordT:
    """The record when another container is about to be started in place of the one that ended."""
    first_run_ms = record.first_run_ms
    if record.restarts == 0 and record.exit is not None and record.started_at:
        first_run_ms = max(record.exit.finished_at - record.started_at, 0)
    return dataclasses.replace(
        record,
        first_run_ms=first_run_ms,
        restarts=record.restarts + 1,
        restart_times=(*record.restart_times, now_ms),
        restart_at=0,
    )


def _ending(condition: pb.RestartCondition.ValueType, *, well: bool) -> State | None:
    """The state that the exit alone leads to; None when the container is to be restarted."""
    match condition:
        case pb.RESTART_CONDITION_NEVER:
            return states.COMPLETE if well else states.FAILED
        case pb.RESTART_CONDITION_ON_FAILURE if well:
            return states.COMPLETE
        case _:
            return None
