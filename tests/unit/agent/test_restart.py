"""What follows a container's end: when the next one is started, and when the task has failed."""

import dataclasses

import pytest

from agent.core import restart
from agent.core.record import Exit, Record
from protos import states
from protos.orch.v1 import objects_pb2 as pb

NOW = 1_000_000
POLICY = pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000)


@pytest.mark.parametrize(
    ("quick_exits", "low_ms", "high_ms"),
    [(0, 0, 0), (1, 800, 1000), (2, 1600, 2000), (6, 25_600, 32_000), (7, 48_000, 60_000), (900, 48_000, 60_000)],
)
def test_restart_delay(quick_exits: int, low_ms: int, high_ms: int) -> None:
    """At once, then 1 s × 2ⁿ up to a minute; chance only shortens it, by up to a fifth."""
    assert restart.delay_ms(quick_exits, 0.0) == high_ms
    assert low_ms <= restart.delay_ms(quick_exits, 0.999_999) <= high_ms


ANY, ON_FAILURE, NEVER = pb.RESTART_CONDITION_ANY, pb.RESTART_CONDITION_ON_FAILURE, pb.RESTART_CONDITION_NEVER


def test_an_end_because_of_probes_is_a_failure() -> None:
    """Whatever the exit code is: a program that ends well when asked to has not done its work."""
    endings = []
    for condition in (ANY, ON_FAILURE, NEVER):
        policy = pb.RestartPolicy(condition=condition, attempts=5, window=300_000)
        record = Record(unhealthy="liveness probe failed: x")
        ended = Exit(code=0, finished_at=NOW)
        endings.append(restart.after_exit(record, ended, policy, now_ms=NOW, jitter=0).ending)
    assert endings == [None, None, states.FAILED]


@pytest.mark.parametrize(
    ("condition", "code", "ending"),
    [
        (ANY, 0, None),
        (ANY, 1, None),
        (pb.RESTART_CONDITION_UNSPECIFIED, 0, None),
        (ON_FAILURE, 0, states.COMPLETE),
        (ON_FAILURE, 137, None),
        (NEVER, 0, states.COMPLETE),
        (NEVER, 3, states.FAILED),
    ],
)
def test_restart_conditions(condition: pb.RestartCondition.ValueType, code: int, ending: int | None) -> None:
    """Which ends are the task's end."""
    policy = pb.RestartPolicy(condition=condition, attempts=5, window=300_000)
    ended = Exit(code=code, finished_at=NOW)
    assert restart.after_exit(Record(), ended, policy, now_ms=NOW, jitter=0).ending == ending


def crash(record: Record, now_ms: int, policy: pb.RestartPolicy) -> Record:
    ended = Exit(code=1, finished_at=now_ms)
    return restart.after_exit(record, ended, policy, now_ms=now_ms, jitter=0)


def test_attempts_within_the_window_fail_the_task() -> None:
    """Five restarts at 0, 1, 2, 4 and 8 s; the sixth end is the task's."""
    record, now, waits = Record(started_at=NOW), NOW, []
    while (record := crash(record, now, POLICY)).ending is None:
        waits.append(record.restart_at - now)
        now = record.restart_at
        record = dataclasses.replace(restart.restarted(record, now_ms=now), started_at=now)
    assert waits == [0, 1000, 2000, 4000, 8000]
    assert (record.ending, record.restarts) == (states.FAILED, 5)


def test_a_minute_of_health_forgives() -> None:
    """What lived for a minute is restarted at once again, and old restarts leave the window."""
    record = Record(started_at=NOW, quick_exits=4, restart_times=(NOW - 299_000, NOW - 1000))
    after = crash(record, NOW + 60_000, POLICY)
    assert after.restart_at == NOW + 60_000
    assert (after.quick_exits, after.restart_times) == (1, (NOW - 1000,))


def test_no_attempts_means_no_restart() -> None:
    """attempts: 0 leaves every end to the leader."""
    policy = pb.RestartPolicy(condition=ANY, attempts=0, window=300_000)
    assert crash(Record(), NOW, policy).ending == states.FAILED


def test_how_long_the_first_container_ran_is_remembered() -> None:
    """Whatever the others do: a rollout asks how a task stood its first moments."""
    record = Record(started_at=NOW, exit=Exit(code=1, finished_at=NOW + 700))
    once = restart.restarted(record, now_ms=NOW + 800)
    assert once.first_run_ms == 700
    again = dataclasses.replace(once, started_at=NOW + 800, exit=Exit(code=1, finished_at=NOW + 90_000))
    assert restart.restarted(again, now_ms=NOW + 90_000).first_run_ms == 700


def test_a_container_that_could_not_be_started_ran_for_no_time() -> None:
    record = Record(exit=Exit(code=127, finished_at=NOW, message="no such file"))
    assert restart.restarted(record, now_ms=NOW).first_run_ms == 0
