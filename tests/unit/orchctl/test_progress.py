"""Where a service stands, from its object and its tasks alone."""

import pytest

from orchctl import progress
from orchctl.progress import Phase, Target
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples

TARGET = Target(kind="service", namespace="default", name="hello", id="id-hello", generation=1)


def changed(value: pb.Service, **meta: int) -> pb.Service:
    for name, number in meta.items():
        setattr(value.meta, name, number)
    return value


@pytest.mark.parametrize(
    ("service", "phase", "summary"),
    [
        pytest.param(samples.service(), Phase.DONE, "3 of 3 ready", id="as asked"),
        pytest.param(samples.service(ready=1, settled=False), Phase.WAITING, "1 of 3 ready", id="on its way"),
        pytest.param(samples.service(asked=0, ready=0), Phase.DONE, "0 of 0 ready", id="nothing is asked for"),
        pytest.param(None, Phase.IMPOSSIBLE, "it was deleted meanwhile", id="deleted"),
        pytest.param(
            changed(samples.service(), deleted_at=5), Phase.IMPOSSIBLE, "it is being deleted", id="going away"
        ),
        pytest.param(
            changed(samples.service(), generation=2),
            Phase.WAITING,
            "waiting for the leader",
            id="not seen by the leader",
        ),
    ],
)
def test_the_phase_follows_from_the_service(service: pb.Service | None, phase: Phase, summary: str) -> None:
    stand = progress.progress(TARGET, service, [], samples.NOW_MS)
    assert (stand.phase, stand.summary) == (phase, summary)


def test_an_older_generation_is_not_the_one_that_was_asked_for() -> None:
    """An instance may lag behind the one that took the change: what it calls settled is the past."""
    wanted = Target(kind="service", namespace="default", name="hello", id="id-hello", generation=2)
    assert progress.progress(wanted, samples.service(), [], samples.NOW_MS).phase is Phase.WAITING


def test_a_later_generation_counts() -> None:
    """Somebody else has changed it since: the newest wish is what can be reached."""
    service = changed(samples.service(), generation=4)
    service.status.observed_generation = 4
    assert progress.progress(TARGET, service, [], samples.NOW_MS).phase is Phase.DONE


def test_another_object_of_the_same_name_is_not_the_one_that_was_asked_for() -> None:
    service = samples.service()
    service.meta.id = "another"
    assert progress.progress(TARGET, service, [], samples.NOW_MS).phase is Phase.IMPOSSIBLE


def test_a_rolling_change_tells_how_many_are_of_the_new_revision() -> None:
    service = samples.service(settled=False)
    service.status.updated = 1
    stopping = samples.task(2, desired=pb.DESIRED_STATE_SHUTDOWN)
    assert (
        progress.progress(TARGET, service, [stopping], samples.NOW_MS).summary
        == "3 of 3 ready, 1 of 3 updated, 1 stopping"
    )


@pytest.mark.parametrize(
    "state",
    [pb.ROLLOUT_STATE_PAUSED, pb.ROLLOUT_STATE_ROLLED_BACK, pb.ROLLOUT_STATE_FAILED, pb.ROLLOUT_STATE_COMPLETED],
)
def test_a_stop_is_over_with_the_last_task_whatever_became_of_the_rollout(state: pb.RolloutState) -> None:
    """Nobody asked for a rollout by it: one that is paused, or was taken back, is no failure of the stop."""
    service = samples.service(ready=0, settled=False)
    service.spec.stopped = True
    service.status.rollout.state = state
    service.status.rollout.stable_revision_id = "r1"
    stopping = samples.task(1, desired=pb.DESIRED_STATE_SHUTDOWN)
    assert progress.progress(TARGET, service, [stopping], samples.NOW_MS).phase is Phase.WAITING
    assert progress.progress(TARGET, service, [], samples.NOW_MS).phase is Phase.DONE


def test_a_stop_says_how_far_it_is() -> None:
    """While others need the service, its status tells of them."""
    service = samples.service(ready=1, settled=False)
    service.spec.stopped = True
    service.status.message = "stopped; it stops after web, which depends on it"
    needed, stopping = samples.task(1), samples.task(2, desired=pb.DESIRED_STATE_REMOVE)
    for tasks, told in (([needed], service.status.message), ([needed, stopping], "1 stopping"), ([], "stopped")):
        assert progress.progress(TARGET, service, tasks, samples.NOW_MS).summary == told


def test_more_than_asked_for_are_not_counted_as_ready() -> None:
    service = samples.service(asked=2, ready=9, settled=False)
    assert progress.progress(TARGET, service, [], samples.NOW_MS).summary == "2 of 2 ready"


def test_equal_troubles_are_counted_together_most_frequent_first() -> None:
    pending = [samples.task(slot, state=pb.TASK_STATE_PENDING, message="no node") for slot in (4, 5, 6)]
    assert progress.troubles([samples.task(1), samples.CRASHING, *pending]) == (
        "3 tasks PENDING: no node",
        "1 task CRASH LOOP: restarts in 8s",
    )


def test_why_no_node_takes_a_task_is_told() -> None:
    (line,) = progress.troubles([samples.PENDING])
    assert line.startswith("1 task PENDING: no node takes it: 3 nodes: not enough memory: needs 4Gi, at most 1Gi is")
    assert line.endswith("free (n1, n2, …); 1 node: it is drained (n4)")


def test_the_bad_end_of_the_task_before_tells_why_there_is_a_new_one() -> None:
    failed = samples.task(
        1, state=pb.TASK_STATE_FAILED, desired=pb.DESIRED_STATE_SHUTDOWN, message="exited too often", age_ms=60_000
    )
    fresh = samples.task(1, state=pb.TASK_STATE_PREPARING, random="bbbbbbbb", age_ms=1000)
    assert progress.troubles([fresh, failed]) == ("1 task FAILED: exited too often",)


def test_a_slot_is_counted_once_however_often_it_failed() -> None:
    rejected = [
        samples.task(slot, state=pb.TASK_STATE_REJECTED, random=f"{age:08}", message="no image", age_ms=age)
        for slot in (1, 2)
        for age in (1000, 2000, 3000)
    ]
    assert progress.troubles(rejected) == ("2 tasks REJECTED: no image",)


def test_an_exit_code_is_told_where_there_is_no_message() -> None:
    ended = samples.task(1, ready=False, exit_code=137, oom_killed=True)
    assert progress.troubles([ended]) == ("1 task RUNNING: ended with exit code 137 (out of memory)",)


@pytest.mark.parametrize(
    ("up_ms", "restarts", "phase"),
    [
        pytest.param(100, 0, Phase.DONE, id="a first start is believed at once"),
        pytest.param(100, 1, Phase.WAITING, id="a restart is not"),
        pytest.param(progress.STEADY_MS, 1, Phase.DONE, id="but after a while"),
        pytest.param(-1000, 1, Phase.DONE, id="a node's clock that is ahead does not matter"),
    ],
)
def test_a_crash_loop_is_not_taken_for_the_end(up_ms: int, restarts: int, phase: Phase) -> None:
    task = samples.task(1, restarts=restarts, started_at=samples.NOW_MS - up_ms)
    stand = progress.progress(TARGET, samples.service(), [task], samples.NOW_MS)
    assert stand.phase is phase
    assert ("just restarted" in stand.summary) == (phase is Phase.WAITING)


def test_a_new_task_in_the_place_of_a_failed_one_has_to_last() -> None:
    failed = samples.task(1, state=pb.TASK_STATE_FAILED, desired=pb.DESIRED_STATE_SHUTDOWN, age_ms=60_000)
    fresh = samples.task(1, random="bbbbbbbb", started_at=samples.NOW_MS - 100, age_ms=1000)
    assert progress.progress(TARGET, samples.service(), [failed, fresh], samples.NOW_MS).phase is Phase.WAITING


def test_a_bad_end_is_forgotten_once_the_slot_is_ready_again() -> None:
    failed = samples.task(1, state=pb.TASK_STATE_FAILED, message="exited too often", age_ms=60_000)
    assert progress.troubles([failed, samples.task(1, random="bbbbbbbb", age_ms=1000)]) == ()


def test_a_task_that_is_told_to_stop_is_no_trouble() -> None:
    stopping = samples.task(1, desired=pb.DESIRED_STATE_SHUTDOWN, ready=False, message="it is being stopped")
    assert progress.troubles([stopping]) == ()


def test_only_some_of_many_reasons_are_told() -> None:
    tasks = [samples.task(slot, state=pb.TASK_STATE_PENDING, message=f"reason {slot}") for slot in range(1, 9)]
    lines = progress.troubles(tasks)
    assert len(lines) == progress.MAX_TROUBLES + 1
    assert lines[-1] == "and 3 other reasons"


@pytest.mark.parametrize(
    ("is_there", "states", "phase", "summary"),
    [
        (False, [], Phase.DONE, "deleted"),
        (True, [pb.TASK_STATE_RUNNING, pb.TASK_STATE_SHUTDOWN], Phase.WAITING, "1 task to stop"),
        (True, [pb.TASK_STATE_SHUTDOWN], Phase.WAITING, "being deleted"),
    ],
)
def test_an_object_goes_after_its_tasks(
    is_there: bool, states: list[pb.TaskState.ValueType], phase: Phase, summary: str
) -> None:
    tasks = [samples.task(slot, state=state) for slot, state in enumerate(states, start=1)]
    stand = progress.going(is_there=is_there, tasks=tasks)
    assert (stand.phase, stand.summary) == (phase, summary)
