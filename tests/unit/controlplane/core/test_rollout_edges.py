"""Rollouts at their edges: what is kept, what ends, what is refused, and what a person changes in the middle."""

import pytest

from controlplane.core import plan, request_errors, tasks
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support.rollouts import whole
from tests.unit.controlplane.core.test_rollout import COMPLETED, PAUSED, ROLLBACK, ROLLED_BACK, STOP_FIRST, keep


@pytest.mark.parametrize(("parallelism", "fewest"), [(1, 9), (3, 7)])
def test_another_order_in_the_middle_stops_no_more_than_may_be_missing(parallelism: int, fewest: int) -> None:
    """Old tasks stand beside new ones that do not work yet, as the policy before wanted it."""
    world = whole(replicas=10, parallelism=4)
    world.apply("slow:2")
    world.step()
    assert len(world.unended) == 14
    changed = plan.copy(world.service)
    changed.spec.update.order, changed.spec.update.parallelism = STOP_FIRST, parallelism
    world.shelf.put(changed)
    world.step()
    assert len(world.images()) == fewest, "as many as may be missing give way to what may wait for them"
    for _ in range(60):
        world.step()
        assert len(world.images()) >= fewest
        waiting = [task for task in world.unended if tasks.is_live(task) and not tasks.is_ready(task)]
        for task in waiting[:1]:
            world.make_ready(task)
    assert world.images() == ["slow:2"] * 10
    assert world.rollout.state == COMPLETED


def test_a_canary_that_has_done_its_work_waits_for_a_word() -> None:
    """As one does that goes on working."""
    world = whole(canary=1)
    changed = plan.copy(world.service)
    changed.spec.template.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
    changed.spec.template.container.image = "slow:2"
    world.shelf.put(changed)
    world.step()
    (canary,) = [task for task in world.unended if not tasks.is_ready(task)]
    world.end(canary, states.COMPLETE)
    world.until(pb.ROLLOUT_STATE_WAITING)
    assert sorted(world.images()) == ["good:1"] * 2
    world.ask(api.ROLLOUT_ACTION_PROMOTE)
    world.steps(2)
    assert world.rollout.state == pb.ROLLOUT_STATE_ROLLING


def test_a_canary_waits_for_a_word_where_all_tasks_have_done_their_work() -> None:
    """Those of the old revision as well: none of them runs any more, and none of the new one may yet."""
    world = whole(replicas=2)
    once = plan.copy(world.service)
    once.spec.template.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
    once.spec.update.canary = 1
    world.shelf.put(once)
    world.until(pb.ROLLOUT_STATE_WAITING)
    world.ask(api.ROLLOUT_ACTION_PROMOTE)
    world.until(COMPLETED)
    for task in world.unended:
        world.end(task, states.COMPLETE)
    world.apply("good:2")
    world.step()
    (canary,) = world.unended
    world.end(canary, states.COMPLETE)
    world.until(pb.ROLLOUT_STATE_WAITING)
    assert "waits to be promoted" in world.service.status.message
    world.ask(api.ROLLOUT_ACTION_PROMOTE)
    world.steps(2)
    (other,) = world.unended
    assert other.slot != canary.slot
    world.end(other, states.COMPLETE)
    world.until(COMPLETED)


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


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (api.ROLLOUT_ACTION_PROMOTE, "no canary of Service default/web waits"),
        (api.ROLLOUT_ACTION_RESUME, "no rollout of Service default/web is paused"),
        (api.ROLLOUT_ACTION_ABORT, "no rollout of Service default/web is going on"),
        (api.ROLLOUT_ACTION_UNDO, "has no revision to go back to"),
        (api.ROLLOUT_ACTION_START, "is not stopped"),
        (api.ROLLOUT_ACTION_UNSPECIFIED, "says nothing"),
    ],
    ids=lambda value: api.RolloutAction.Name(value) if isinstance(value, int) else "",
)
def test_what_makes_no_sense_is_refused(action: api.RolloutAction.ValueType, said: str) -> None:
    with pytest.raises(request_errors.RequestError, match=said):
        whole().ask(action)


@pytest.mark.parametrize(("number", "said"), [(1, "asks for revision 1 already"), (7, "has no revision 7")])
def test_undo_to_what_is_not_there(number: int, said: str) -> None:
    world = whole()
    with pytest.raises(request_errors.RequestError, match=said):
        world.ask(api.ROLLOUT_ACTION_UNDO, revision=number)


def test_pausing_twice_and_restarting_what_is_stopped() -> None:
    world = whole()
    world.ask(api.ROLLOUT_ACTION_PAUSE)
    with pytest.raises(request_errors.NotNow, match="are paused already"):
        world.ask(api.ROLLOUT_ACTION_PAUSE)
    world.ask(api.ROLLOUT_ACTION_STOP)
    for action, said in ((api.ROLLOUT_ACTION_STOP, "stopped already"), (api.ROLLOUT_ACTION_RESTART, "is stopped")):
        with pytest.raises(request_errors.NotNow, match=said):
            world.ask(action)
