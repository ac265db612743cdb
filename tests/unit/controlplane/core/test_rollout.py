"""A new revision goes in as `update` says, stops by itself when it fails, and any leader goes on with it exactly."""

from pathlib import Path

import pytest

from controlplane.core import plan, tasks, update_policy
from manifests import defaults
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support.rollouts import World, whole

HERE = Path(__file__).parent / "rollouts"

COMPLETED, PAUSED = pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_PAUSED
ROLLED_BACK, WAITING = pb.ROLLOUT_STATE_ROLLED_BACK, pb.ROLLOUT_STATE_WAITING
ROLLBACK = pb.UPDATE_FAILURE_ACTION_ROLLBACK
FAILED = pb.REVISION_OUTCOME_FAILED
STOP_FIRST = pb.UPDATE_ORDER_STOP_FIRST


def peaks(world: World, steps: int = 60) -> tuple[int, int]:
    """The most live tasks, and the fewest ready ones, that there were while it was rolled out."""
    world.most_live, fewest = 0, len(world.tasks)
    for _ in range(steps):
        world.step()
        fewest = min(fewest, len(world.images()))
    return world.most_live, fewest


@pytest.mark.parametrize(
    ("update", "most", "fewest"),
    [
        ({}, 11, 10),
        ({"parallelism": 4}, 14, 10),
        ({"parallelism": 0}, 20, 10),
        ({"order": STOP_FIRST}, 10, 9),
        ({"order": STOP_FIRST, "parallelism": 3}, 10, 7),
        ({"order": STOP_FIRST, "parallelism": 0}, 10, 0),
        ({"max_surge": "25%"}, 13, 10),
        ({"max_unavailable": "25%"}, 10, 8),
        ({"max_surge": "2", "max_unavailable": "1"}, 12, 9),
        ({"max_unavailable": "5%"}, 10, 9),
    ],
    ids=str,
)
def test_never_more_and_never_fewer_than_the_policy_allows(update: dict[str, object], most: int, fewest: int) -> None:
    """And all of it is used: a policy that allows ten at a time does not take one at a time."""
    world = whole(replicas=10, **update)
    world.apply("good:2")
    assert peaks(world) == (most, fewest)
    assert world.images() == ["good:2"] * 10
    assert world.rollout.state == COMPLETED


def test_blue_green_keeps_all_old_tasks_until_every_new_one_is_ready() -> None:
    """Two of three are not enough."""
    world = whole(parallelism=0)
    world.apply("slow:2")
    world.step()
    new = [task for task in world.unended if not tasks.is_ready(task)]
    for number, task in enumerate(new, start=1):
        assert sorted(world.images()) == ["good:1"] * 3 + ["slow:2"] * (number - 1)
        world.make_ready(task)
        world.steps(5)
    assert world.images() == ["slow:2"] * 3
    assert world.rollout.state == COMPLETED


@pytest.mark.parametrize("image", ["broken:2", "crashing:2"])
@pytest.mark.parametrize("order", [pb.UPDATE_ORDER_START_FIRST, STOP_FIRST])
def test_a_failure_pauses_and_the_others_are_left_alone(image: str, order: pb.UpdateOrder.ValueType) -> None:
    world = whole(order=order)
    world.apply(image)
    world.until(PAUSED)
    world.steps(20)
    assert world.images().count("good:1") >= (2 if image == "broken:2" else 1), "what crashed late was seen late"
    assert world.rollout.failed == 1
    assert "has failed and is paused" in world.service.status.message
    assert not world.service.status.settled
    assert world.revision(2).outcome == FAILED


def test_start_first_loses_nothing_to_a_broken_revision() -> None:
    world = whole(on_failure=ROLLBACK)
    world.apply("broken:2")
    most, fewest = peaks(world, 20)
    assert (most, fewest) == (4, 3)
    assert world.rollout.state == ROLLED_BACK


@pytest.mark.parametrize(
    ("order", "deadline_ms"), [(pb.UPDATE_ORDER_START_FIRST, 1_000), (STOP_FIRST, 1_000 + 10_000 + 2_000)]
)
def test_the_time_to_stop_comes_on_top_of_the_deadline(order: pb.UpdateOrder.ValueType, deadline_ms: int) -> None:
    """Else a deadline as short as the grace of what has to stop first would be missed by every rollout."""
    spec = pb.ServiceSpec(update=pb.UpdatePolicy(order=order, progress_deadline=1_000))
    assert update_policy.of(spec, defaults.resolve(spec.template), 3).deadline_ms == deadline_ms
    spec.template.sidecars.add(name="beside")
    more_ms = 10_000 if order == STOP_FIRST else 0
    new, old = defaults.resolve(pb.TaskTemplate()), defaults.resolve(spec.template)
    assert update_policy.of(spec, new, 3, [old]).deadline_ms == deadline_ms + more_ms


def test_what_ran_nowhere_has_not_shown_that_it_is_good() -> None:
    """A revision that came and went while there were no replicas is none to go back to."""
    world = whole(on_failure=ROLLBACK)
    world.scale(0)
    world.apply("missing:2")
    world.until(COMPLETED)
    world.scale(3)
    world.apply("broken:3")
    world.until(ROLLED_BACK)
    assert world.images() == ["good:1"] * 3


def test_a_rollback_is_not_judged_and_lasts_until_the_template_changes() -> None:
    """Even when what it goes back to fails in its turn."""
    world = whole(on_failure=ROLLBACK, order=STOP_FIRST)
    world.apply("broken:2")
    world.until(ROLLED_BACK)
    for task in world.unended:
        world.end(task, states.FAILED)
    world.steps(60)
    assert world.images() == ["good:1"] * 3
    assert world.rollout.state == ROLLED_BACK
    assert world.service.spec.template.container.image == "broken:2", "the spec is the user's"
    assert world.revision(2).outcome == pb.REVISION_OUTCOME_ROLLED_BACK
    world.apply("good:3")
    world.until(COMPLETED)
    assert world.images() == ["good:3"] * 3


def test_without_a_good_revision_there_is_none_to_go_back_to() -> None:
    world = World(image="slow:1", update=pb.UpdatePolicy(on_failure=ROLLBACK, order=STOP_FIRST))
    world.steps(3)
    world.end(world.unended[0], states.RUNNING)
    world.apply("broken:2")
    world.steps(20)
    assert world.rollout.state != ROLLED_BACK
    assert world.rollout.stable_revision_id == ""


@pytest.mark.parametrize(("ratio", "failed"), [("0", 1), ("0.25", 2), ("30%", 2), ("1", 3)])
def test_so_many_may_fail(ratio: str, failed: int) -> None:
    """Of four: with a quarter the second is too many; with 1 none is."""
    world = whole(replicas=4, max_failure_ratio=ratio, parallelism=4)
    world.apply("slow:2")
    world.step()
    for number, task in enumerate([one for one in world.unended if not tasks.is_ready(one)][:failed], start=1):
        world.end(task, states.FAILED)
        world.look()
        assert (world.rollout.state == PAUSED) == (number == failed and ratio != "1")


def test_what_cannot_become_ready_ends_at_the_deadline() -> None:
    """A task that no node takes holds nothing up for ever."""
    world = whole(progress_deadline=30_000)
    world.apply("slow:2")
    world.steps(29)
    assert world.rollout.state == pb.ROLLOUT_STATE_ROLLING
    world.steps(3)
    assert world.rollout.state == PAUSED
    assert "no further task became ready for 30s" in world.rollout.reason
    assert world.images() == ["good:1"] * 3


def test_a_rest_between_tasks_is_no_delay_to_the_deadline() -> None:
    """A rollout that was asked to rest for longer than the deadline goes on after it."""
    world = whole(progress_deadline=10_000, delay=40_000, parallelism=1)
    world.apply("good:2")
    world.until(pb.ROLLOUT_STATE_COMPLETED, within=200)
    assert world.images() == ["good:2"] * 3


def test_resume_tries_again_and_forgets_what_had_failed() -> None:
    world = whole()
    world.apply("broken:2")
    world.until(PAUSED)
    world.ask(api.ROLLOUT_ACTION_RESUME)
    world.look()
    assert (world.rollout.state, world.rollout.failed) == (pb.ROLLOUT_STATE_ROLLING, 0)
    world.until(PAUSED)


def test_a_first_revision_that_crashes_again_and_again_is_never_good() -> None:
    """It has failed, and is tried again and again, for there is no other; but nobody ever goes back to it."""
    world = World(replicas=1, update=pb.UpdatePolicy(on_failure=ROLLBACK))
    for _ in range(20):
        world.step()
        for task in filter(tasks.is_ready, world.tasks):
            world.end(task, states.FAILED)
    assert world.rollout.state == pb.ROLLOUT_STATE_FAILED
    world.apply("good:2")
    world.until(COMPLETED)
    assert world.images() == ["good:2"]
    assert world.revision(1).outcome == FAILED


def test_a_spec_that_changes_in_the_middle_goes_on_from_where_it_is() -> None:
    """The middle revision leaves first, and what was good before all of it is what can be gone back to."""
    world = whole(replicas=6)
    world.apply("good:2")
    world.steps(4)
    assert {"good:1", "good:2"} == set(world.images())
    world.apply("good:3")
    _, fewest = peaks(world, 30)
    assert fewest == 6
    assert world.images() == ["good:3"] * 6
    assert world.revision(2).outcome == pb.REVISION_OUTCOME_SUPERSEDED


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


@pytest.mark.parametrize("replicas", [1, 9])
def test_scaling_while_it_is_rolled_out(replicas: int) -> None:
    world = whole(replicas=5)
    world.apply("good:2")
    world.steps(3)
    world.scale(replicas)
    world.until(COMPLETED)
    assert world.images() == ["good:2"] * replicas


def test_deleting_while_it_is_rolled_out() -> None:
    world = whole()
    world.apply("slow:2")
    world.steps(2)
    marked = plan.copy(world.service)
    marked.meta.deleted_at = world.now_ms
    world.shelf.put(marked)
    world.look()
    assert {task.desired_state for task in world.unended} == {pb.DESIRED_STATE_REMOVE}


def test_draining_while_it_is_rolled_out() -> None:
    """What leaves its node does so as it is, whether the new revision works or not; nothing is lost by it."""
    world = whole()
    world.apply("slow:2")
    world.step()
    world.draining = frozenset({"n2"})
    for _ in range(3):
        world.step()
        assert world.images() == ["good:1"] * 3
    assert [task.slot for task in world.unended if tasks.is_live(task) and task.node_id == "n2"] == []
    world.draining = frozenset()
    world.apply("good:3")
    world.until(COMPLETED)
    assert world.images() == ["good:3"] * 3


def test_the_delay_is_kept_between_two_replacements() -> None:
    world = whole(delay=10_000)
    world.apply("good:2")
    world.steps(9)
    assert world.images().count("good:2") == 1
    world.steps(4)
    assert world.images().count("good:2") == 2


def test_stopped_and_started() -> None:
    world = whole()
    world.ask(api.ROLLOUT_ACTION_STOP)
    world.steps(3)
    assert world.images() == []
    assert (world.service.status.message, world.service.status.settled) == ("stopped", True)
    assert world.service.spec.replicas == 3
    world.ask(api.ROLLOUT_ACTION_START)
    world.steps(3)
    assert world.images() == ["good:1"] * 3
    assert len(world.shelf.all(pb.Revision)) == 1


def test_work_that_ends_is_replaced_by_work_that_ends() -> None:
    """What is done is not asked again, also beside an old task that still runs."""
    world = whole()
    world.apply("slow:2")
    changed = plan.copy(world.service)
    changed.spec.template.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
    world.shelf.put(changed)
    for _ in range(12):
        world.step()
        for task in world.unended:
            if tasks.is_live(task) and not tasks.is_ready(task):
                world.end(task, states.COMPLETE)
    assert world.images() == []
    assert sum(task.status.state == states.COMPLETE for task in world.tasks) == 3
    assert world.rollout.state == COMPLETED
