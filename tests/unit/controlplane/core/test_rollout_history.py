"""What is remembered of revisions, and how many of them are."""

from controlplane.core import plan
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support.rollouts import World, whole

COMPLETED, PAUSED, ROLLED_BACK = pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_PAUSED, pb.ROLLOUT_STATE_ROLLED_BACK
ROLLBACK = pb.UPDATE_FAILURE_ACTION_ROLLBACK
FAILED = pb.REVISION_OUTCOME_FAILED


def keep(world: World, number: int) -> None:
    """So many revisions that no task runs."""
    changed = plan.copy(world.service)
    changed.spec.revision_history_limit = number
    world.shelf.put(changed)


def test_a_revision_that_failed_stays_failed_in_the_history_and_may_be_tried_again() -> None:
    world = whole()
    world.apply("broken:2")
    world.until(PAUSED)
    world.ask(api.ROLLOUT_ACTION_RESUME)
    world.look()
    assert world.revision(2).outcome == pb.REVISION_OUTCOME_ROLLING
    world.until(PAUSED)
    world.apply("good:3")
    world.until(COMPLETED)
    assert [world.revision(number).outcome for number in (2, 3)] == [FAILED, pb.REVISION_OUTCOME_COMPLETED]


def test_revisions_are_kept_as_many_as_are_wanted() -> None:
    """Those that were rolled out last, beside those of which tasks are still remembered."""
    world = whole()
    keep(world, 2)
    for number in range(2, 9):
        world.apply(f"good:{number}")
        world.until(COMPLETED)
    for _ in range(6):
        world.look()
    numbers = {one.meta.id: one.number for one in world.shelf.all(pb.Revision)}
    used = {numbers[task.revision_id] for task in world.tasks}
    assert used == {5, 6, 7, 8}
    assert sorted(numbers.values()) == [3, 4, *sorted(used)]


def test_the_revision_that_a_rollback_leads_to_is_kept_even_if_none_is() -> None:
    """No task runs it or is remembered of it, and others came after it."""
    world = whole(on_failure=ROLLBACK)
    keep(world, 0)
    world.ask(api.ROLLOUT_ACTION_STOP)
    world.steps(3)
    for image in ("missing:2", "missing:3", "broken:4"):
        world.apply(image)
        world.steps(3)
    assert world.tasks == []
    assert [one.number for one in world.shelf.all(pb.Revision)] == [1, 4]
    world.ask(api.ROLLOUT_ACTION_START)
    world.steps(3)
    world.apply("broken:5")
    world.until(ROLLED_BACK)
    assert world.images() == ["good:1"] * 3
