"""What people say to a rollout: pause, resume, promote, abort, undo and restart."""

from pathlib import Path

import pytest

from controlplane.core import plan, request_errors, tasks
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support.rollouts import World, whole

HERE = Path(__file__).parent / "rollouts"

COMPLETED, PAUSED = pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_PAUSED
ROLLED_BACK, WAITING = pb.ROLLOUT_STATE_ROLLED_BACK, pb.ROLLOUT_STATE_WAITING
ROLLBACK = pb.UPDATE_FAILURE_ACTION_ROLLBACK
STOP_FIRST = pb.UPDATE_ORDER_STOP_FIRST


def test_pause_and_resume() -> None:
    world = whole()
    world.ask(api.ROLLOUT_ACTION_PAUSE)
    world.apply("good:2")
    world.steps(5)
    assert world.images() == ["good:1"] * 3
    for task in world.unended:
        world.end(task, states.FAILED)
    world.steps(5)
    assert world.images() == ["good:1"] * 3, "what fails meanwhile is made again as it was"
    world.ask(api.ROLLOUT_ACTION_RESUME)
    world.until(COMPLETED)
    assert world.images() == ["good:2"] * 3


def test_a_canary_waits_for_a_word() -> None:
    world = whole(replicas=4, canary=1)
    world.apply("good:2")
    world.until(WAITING)
    world.steps(10)
    assert world.images() == ["good:2", "good:1", "good:1", "good:1"]
    world.scale(6)
    world.steps(5)
    assert world.images().count("good:2") == 1, "more replicas are no canaries"
    world.ask(api.ROLLOUT_ACTION_PROMOTE)
    world.until(COMPLETED)
    assert world.images() == ["good:2"] * 6


def test_a_canary_is_not_promoted_by_stop_and_start() -> None:
    """It is made again, and waits again."""
    world = whole(canary=1)
    world.apply("good:2")
    world.until(WAITING)
    world.ask(api.ROLLOUT_ACTION_STOP)
    world.steps(3)
    assert world.images() == []
    world.ask(api.ROLLOUT_ACTION_START)
    world.steps(6)
    assert world.rollout.state == WAITING
    assert sorted(world.images()) == ["good:1", "good:1", "good:2"]


def test_a_canary_that_fails_is_no_canary() -> None:
    world = whole(canary=1, on_failure=ROLLBACK)
    world.apply("good:2")
    world.until(WAITING)
    new = next(task for task in world.unended if task.revision_id == world.rollout.revision_id)
    world.end(new, states.FAILED)
    world.until(ROLLED_BACK)
    assert world.images() == ["good:1"] * 3


def test_abort_goes_back_and_refuses_the_revision() -> None:
    world = whole(canary=1)
    world.apply("good:2")
    world.until(WAITING)
    world.ask(api.ROLLOUT_ACTION_ABORT)
    world.until(ROLLED_BACK)
    world.steps(5)
    assert world.images() == ["good:1"] * 3
    assert world.revision(2).outcome == pb.REVISION_OUTCOME_ABORTED


def test_undo_goes_back_to_the_very_revision_and_undo_again_to_the_other() -> None:
    world = whole()
    world.apply("good:2")
    world.until(COMPLETED)
    world.ask(api.ROLLOUT_ACTION_UNDO)
    world.until(COMPLETED)
    assert (world.images(), world.service.status.revision_id) == (["good:1"] * 3, world.revision(1).meta.id)
    world.ask(api.ROLLOUT_ACTION_UNDO)
    world.until(COMPLETED)
    assert world.images() == ["good:2"] * 3
    assert len(world.shelf.all(pb.Revision)) == 2, "nothing new was made"


def test_going_to_and_fro_makes_nothing_wait() -> None:
    """What made way for another revision has not failed."""
    world = whole()
    world.apply("good:2")
    world.until(COMPLETED)
    for _ in range(8):
        world.ask(api.ROLLOUT_ACTION_UNDO)
        world.until(COMPLETED)
    assert [task.failures for task in world.tasks if tasks.is_live(task)] == [0, 0, 0]


def test_restart_makes_a_revision_of_the_same_template() -> None:
    world = whole()
    before = {task.meta.id for task in world.unended}
    world.ask(api.ROLLOUT_ACTION_RESTART)
    world.until(COMPLETED)
    assert world.images() == ["good:1"] * 3
    assert not before & {task.meta.id for task in filter(tasks.is_ready, world.tasks)}
    assert world.revision(2).changes == ["restarted"]


def refused() -> World:
    """Revision 2 was turned back by itself, where tasks stop first."""
    world = whole(on_failure=ROLLBACK, order=STOP_FIRST)
    world.apply("crashing:2")
    world.until(ROLLED_BACK)
    world.steps(5)
    return world


def test_what_was_turned_back_is_not_brought_in_by_a_restart() -> None:
    """Every task is replaced by one of the good revision, one at a time, and the spec asks for that from then on."""
    world = refused()
    before = {task.meta.id for task in world.unended}
    said = world.ask(api.ROLLOUT_ACTION_RESTART)
    assert said == "restarts: its tasks are replaced by equal ones of revision 1, which the spec asks for again"
    seen: set[str] = set()
    for _ in range(30):
        world.step()
        assert len(world.images()) >= 2, "one at a time"
        seen |= set(world.images())
    assert (seen, world.images()) == ({"good:1"}, ["good:1"] * 3)
    assert world.rollout.state == COMPLETED
    assert not before & {task.meta.id for task in world.unended}
    assert world.service.spec.template.container.image == "good:1"


@pytest.mark.parametrize("steps", [0, 15])
def test_what_was_aborted_is_not_brought_in_by_a_restart(steps: int) -> None:
    """Neither when the leader has gone back already, nor when it has not seen the word yet."""
    world = whole()
    world.apply("good:2")
    world.steps(2)
    world.ask(api.ROLLOUT_ACTION_ABORT)
    world.steps(steps)
    world.ask(api.ROLLOUT_ACTION_RESTART)
    world.until(COMPLETED)
    assert world.images() == ["good:1"] * 3
    assert world.service.spec.restarted_at


def test_a_restart_takes_back_no_apply_that_the_leader_has_not_seen() -> None:
    world = refused()
    world.apply("good:3")
    assert world.ask(api.ROLLOUT_ACTION_RESTART) == "restarts: its tasks are replaced by equal ones"
    world.until(COMPLETED)
    assert world.images() == ["good:3"] * 3


def test_while_two_revisions_stand_side_by_side_there_is_no_restart() -> None:
    """It would bring in what has failed, or what waits for a word."""
    world = whole(canary=1)
    world.apply("good:2")
    world.until(WAITING)
    with pytest.raises(request_errors.NotNow, match="is between two revisions") as caught:
        world.ask(api.ROLLOUT_ACTION_RESTART)
    assert caught.value.hint == "`orchctl rollout promote web` or `abort` decides which it is to be"
    world.apply("broken:3")
    world.until(PAUSED)
    with pytest.raises(request_errors.NotNow, match="has failed and is paused") as caught:
        world.ask(api.ROLLOUT_ACTION_RESTART)
    assert caught.value.hint == "`orchctl rollout resume web` or `abort` decides which it is to be"


def test_while_rollouts_are_paused_there_is_no_restart() -> None:
    world = whole()
    world.ask(api.ROLLOUT_ACTION_PAUSE)
    with pytest.raises(request_errors.NotNow, match="none of its tasks would be replaced"):
        world.ask(api.ROLLOUT_ACTION_RESTART)


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
