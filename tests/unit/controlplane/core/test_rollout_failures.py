"""What has failed is counted, told, and tried further: with `onFailure: continue`, and of a first revision."""

import itertools

import pytest

from controlplane.core import plan, tasks
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support.rollouts import World, whole

COMPLETED, FAILED = pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_FAILED
ROLLED_BACK, WAITING = pb.ROLLOUT_STATE_ROLLED_BACK, pb.ROLLOUT_STATE_WAITING
ROLLING, PAUSED = pb.ROLLOUT_STATE_ROLLING, pb.ROLLOUT_STATE_PAUSED
PAUSE, CONTINUE = pb.UPDATE_FAILURE_ACTION_PAUSE, pb.UPDATE_FAILURE_ACTION_CONTINUE
ROLLBACK = pb.UPDATE_FAILURE_ACTION_ROLLBACK
START_FIRST, STOP_FIRST = pb.UPDATE_ORDER_START_FIRST, pb.UPDATE_ORDER_STOP_FIRST
DEADLINE_MS = 30_000


def going_on(image: str, **update: object) -> World:
    """An update of four tasks that no failure stops, as it begins."""
    world = whole(replicas=4, on_failure=CONTINUE, progress_deadline=DEADLINE_MS, **update)
    world.most_live = 0
    world.apply(image)
    return world


def tried(world: World) -> set[int]:
    """The slots that got a task of revision 2."""
    new = world.revision(2).meta.id
    return {task.slot for task in world.tasks if task.revision_id == new}


@pytest.mark.parametrize("image", ["broken:2", "slow:2", "unplaced:2"])
def test_it_goes_on_to_the_end_and_no_old_task_is_lost_by_that(image: str) -> None:
    """What fails, does not start or is not placed is left behind, and stops: never is more than one beside the old."""
    world = going_on(image)
    for _ in range(300):
        world.step()
        assert world.images() == ["good:1"] * 4
    assert world.most_live == 5
    assert tried(world) == {1, 2, 3, 4}
    assert (world.rollout.state, world.rollout.failed) == (FAILED, 4)


@pytest.mark.parametrize("image", ["broken:2", "slow:2", "unplaced:2"])
def test_where_old_tasks_stop_first_it_goes_on_to_the_end_too(image: str) -> None:
    """One at a time: the next old task stops when the new one has failed, however few are left."""
    world = going_on(image, order=STOP_FIRST)
    left = [4]
    for _ in range(300):
        world.step()
        left.append(len(world.images()))
    assert {before - after for before, after in itertools.pairwise(left)} == {0, 1}
    assert (left[-1], tried(world)) == (0, {1, 2, 3, 4})
    assert (world.rollout.state, world.rollout.failed) == (FAILED, 4)


def test_what_failed_is_told_with_its_number() -> None:
    world = going_on("uneven:2")
    world.until(FAILED)
    assert world.images() == ["good:1", "uneven:2", "uneven:2", "uneven:2"]
    (task,) = [one for one in world.tasks if one.slot == 1 and one.revision_id == world.rollout.revision_id]
    assert world.rollout.message == (
        "the update to revision 2 went through and has failed: 3 of 4 replaced: 1 of 4 tasks failed; "
        f"{task.meta.name}: ended with exit code 1; what failed is tried further"
    )
    assert world.rollout.message in world.service.status.message
    assert (world.revision(2).outcome, world.revision(2).failed) == (pb.REVISION_OUTCOME_FAILED, 1)
    assert not world.service.status.settled


def test_why_no_node_takes_it_is_told() -> None:
    world = going_on("unplaced:2")
    world.until(FAILED, within=200)
    assert "not ready after 30s: no node takes it" in world.rollout.reason


@pytest.mark.parametrize("order", [START_FIRST, STOP_FIRST])
@pytest.mark.parametrize("image", ["broken:2", "slow:2", "unplaced:2", "uneven:2"])
def test_it_is_completed_by_itself_once_everything_works(image: str, order: pb.UpdateOrder.ValueType) -> None:
    """And how many failed on the way is still told."""
    world = going_on(image, order=order)
    world.until(FAILED, within=300)
    failed = world.rollout.failed
    world.mended = True
    world.until(COMPLETED, within=200)
    assert world.images() == [image] * 4
    assert world.rollout.message == f"revision 2 is rolled out; {failed} of its tasks failed on the way"
    assert (world.revision(2).outcome, world.revision(2).failed) == (pb.REVISION_OUTCOME_COMPLETED, failed)
    assert world.service.status.settled
    for _ in range(3):
        world.step()
    assert world.look() == plan.NOTHING


def test_afterwards_it_is_tried_less_and_less_often_and_every_slot_gets_its_turn() -> None:
    world = going_on("broken:2")
    world.until(FAILED)
    made = set[tuple[int, str]]()
    for _ in range(600):
        world.step()
        made |= {(task.slot, task.meta.id) for task in world.tasks if task.revision_id == world.rollout.revision_id}
    by_slot = [sum(slot == one for one, _ in made) for slot in (1, 2, 3, 4)]
    assert all(8 <= number <= 20 for number in by_slot), by_slot


def test_resume_tries_everything_again_and_abort_goes_back() -> None:
    world = going_on("uneven:2")
    world.until(FAILED)
    world.ask(api.ROLLOUT_ACTION_RESUME)
    world.look()
    assert (world.rollout.state, world.rollout.failed, world.rollout.reason) == (ROLLING, 0, "")
    world.until(FAILED)
    world.ask(api.ROLLOUT_ACTION_ABORT)
    world.until(ROLLED_BACK)
    assert world.images() == ["good:1"] * 4


def test_a_canary_that_fails_waits_for_a_word_like_one_that_works() -> None:
    """The others are not to be tried for it, and whoever decides sees that it failed."""
    for order in (START_FIRST, STOP_FIRST):
        world = going_on("broken:2", canary=1, order=order)
        world.until(WAITING)
        world.steps(60)
        assert world.rollout.state == WAITING
        assert tried(world) == {1}
        assert world.rollout.message == "the update to revision 2 waits to be promoted: 0 of 4 replaced, 1 failed"
        world.ask(api.ROLLOUT_ACTION_PROMOTE)
        world.until(FAILED)
        assert tried(world) == {1, 2, 3, 4}


def test_one_of_two_canaries_that_fails_is_still_one_of_two() -> None:
    """No third is tried for it, neither beside an old task nor where one has ended."""
    world = going_on("slow:2", canary=2, parallelism=2)
    world.step()
    assert tried(world) == {1, 2}
    new = next(task for task in world.unended if task.slot == 1 and not tasks.is_ready(task))
    world.end(new, pb.TASK_STATE_FAILED)
    world.end(next(task for task in world.unended if task.slot == 3), pb.TASK_STATE_FAILED)
    world.steps(5)
    assert tried(world) == {1, 2}
    assert world.images() == ["good:1"] * 4
    assert world.rollout.state == ROLLING


def test_with_one_more_and_one_fewer_the_old_tasks_that_are_left_stay() -> None:
    """What may be missing is lost where the new revision does not work; afterwards, nothing more is."""
    world = going_on("broken:2", max_surge="1", max_unavailable="1")
    world.until(FAILED)
    left = len(world.images())
    assert left > 0
    for _ in range(300):
        world.step()
        assert len(world.images()) == left
    world.mended = True
    world.until(COMPLETED, within=200)
    assert world.images() == ["broken:2"] * 4


def test_what_has_failed_is_replaced_no_further_while_it_is_paused() -> None:
    world = going_on("broken:2")
    world.until(FAILED)
    world.ask(api.ROLLOUT_ACTION_PAUSE)
    world.mended = True
    world.steps(100)
    assert world.rollout.state == pb.ROLLOUT_STATE_PAUSED
    assert world.images().count("good:1") >= 3, "the one that was begun may come through"
    world.ask(api.ROLLOUT_ACTION_RESUME)
    world.until(COMPLETED)
    assert world.images() == ["broken:2"] * 4


def test_the_delay_is_kept_after_a_failure_too() -> None:
    world = going_on("broken:2", delay=10_000)
    world.steps(9)
    assert tried(world) == {1}
    world.steps(4)
    assert tried(world) == {1, 2}


def test_blue_and_green_change_without_what_failed() -> None:
    world = going_on("uneven:2", parallelism=0)
    world.until(FAILED)
    assert world.images() == ["good:1", "uneven:2", "uneven:2", "uneven:2"]


def test_what_crashes_and_comes_up_again_is_counted_and_completed() -> None:
    world = going_on("crashing:2")
    world.until(COMPLETED)
    assert world.images() == ["crashing:2"] * 4
    assert world.rollout.failed >= 3
    assert "of its tasks failed on the way" in world.rollout.message


# First revisions ------------------------------------------------------------------------------------------------------


def first(image: str, on_failure: pb.UpdateFailureAction.ValueType, **update: object) -> World:
    policy = pb.UpdatePolicy(on_failure=on_failure, progress_deadline=DEADLINE_MS, monitor=1_000, **update)  # type: ignore[arg-type]
    return World(image=image, update=policy)


@pytest.mark.parametrize("on_failure", [PAUSE, CONTINUE, ROLLBACK], ids=pb.UpdateFailureAction.Name)
@pytest.mark.parametrize("image", ["slow:1", "unplaced:1"])
def test_a_first_revision_has_failed_at_the_deadline(image: str, on_failure: pb.UpdateFailureAction.ValueType) -> None:
    """Its tasks stay: there is nothing that could take their place."""
    world = first(image, on_failure)
    world.steps(29)
    assert world.rollout.state == ROLLING
    there = {task.meta.id for task in world.unended}
    world.steps(3)
    assert world.rollout.state == FAILED
    assert world.rollout.message.startswith("revision 1 has failed: 0 of 3 ready: ")
    assert "30s" in world.rollout.reason
    assert world.rollout.message.endswith("; what failed is tried further")
    assert world.revision(1).outcome == pb.REVISION_OUTCOME_FAILED
    world.steps(60)
    assert {task.meta.id for task in world.unended} == there
    assert len(there) == 3


@pytest.mark.parametrize("on_failure", [PAUSE, CONTINUE, ROLLBACK], ids=pb.UpdateFailureAction.Name)
@pytest.mark.parametrize("image", ["slow:1", "unplaced:1", "broken:1"])
def test_a_first_revision_that_works_after_all_is_completed(
    image: str, on_failure: pb.UpdateFailureAction.ValueType
) -> None:
    """From then on it is what is gone back to."""
    world = first(image, on_failure)
    world.until(FAILED)
    world.mended = True
    world.until(COMPLETED, within=100)
    assert world.images() == [image] * 3
    assert world.service.status.settled
    assert world.rollout.stable_revision_id == world.revision(1).meta.id
    assert world.revision(1).outcome == pb.REVISION_OUTCOME_COMPLETED
    assert world.rollout.reason == ""


@pytest.mark.parametrize(("ratio", "failed"), [("0", 1), ("0.5", 2), ("1", 3)])
def test_of_a_first_revision_so_many_may_fail(ratio: str, failed: int) -> None:
    """Of three, with half of them the second is too many; with 1 none is."""
    world = first("slow:1", PAUSE, max_failure_ratio=ratio)
    world.step()
    for number, task in enumerate(world.unended[:failed], start=1):
        world.end(task, pb.TASK_STATE_FAILED)
        world.look()
        assert (world.rollout.state == FAILED) == (number == failed and ratio != "1")
    assert sum(map(tasks.is_live, world.tasks)) == 3, "it is tried again"


def test_resume_gives_a_first_revision_a_new_deadline() -> None:
    world = first("slow:1", PAUSE)
    world.until(FAILED)
    world.ask(api.ROLLOUT_ACTION_RESUME)
    world.steps(20)
    assert (world.rollout.state, world.rollout.reason) == (ROLLING, "")
    world.until(FAILED)


def test_another_template_is_a_new_beginning() -> None:
    world = first("broken:1", ROLLBACK)
    world.until(FAILED)
    world.apply("good:2")
    world.until(COMPLETED)
    assert world.images() == ["good:2"] * 3
    assert world.revision(1).outcome == pb.REVISION_OUTCOME_FAILED


@pytest.mark.parametrize(("ran_ms", "counts"), [(5_000, True), (5_001, False)])
@pytest.mark.parametrize("in_place", [True, False])
def test_what_fails_after_monitor_is_no_failure_of_the_rollout(ran_ms: int, in_place: bool, counts: bool) -> None:
    """Neither when it ends nor when its container is started again in place; within the window, both are."""
    world = whole(monitor=5_000)
    world.apply("slow:2")
    world.step()
    new = next(task for task in world.unended if not tasks.is_ready(task))
    if in_place:
        world.restart(new, ran_ms=ran_ms)
    else:
        world.end(new, states.FAILED, ran_ms=ran_ms)
    world.look()
    assert (world.rollout.state == PAUSED, world.rollout.failed) == (counts, int(counts))
