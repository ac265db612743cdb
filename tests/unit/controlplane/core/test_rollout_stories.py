"""Rollouts from beginning to end: to be read as transcripts, and as whatever people may do in any order."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import plan, request_errors, tasks
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support import golden
from tests.support.rollouts import World, whole

HERE = Path(__file__).parent / "rollouts"
COMPLETED = pb.ROLLOUT_STATE_COMPLETED
ROLLBACK = pb.UPDATE_FAILURE_ACTION_ROLLBACK
STOP_FIRST = pb.UPDATE_ORDER_STOP_FIRST


def test_transcript_of_a_start_first_update() -> None:
    world = whole(replicas=2)
    world.transcript.clear()
    world.apply("good:2")
    world.steps(6)
    golden.check(HERE / "start_first.txt", "\n".join(world.transcript) + "\n")


def test_transcript_of_a_rollback() -> None:
    world = whole(replicas=3, order=STOP_FIRST, on_failure=ROLLBACK)
    world.transcript.clear()
    world.apply("broken:2")
    world.steps(8)
    golden.check(HERE / "rollback.txt", "\n".join(world.transcript) + "\n")


def test_transcript_of_a_canary() -> None:
    world = whole(replicas=3, canary=1)
    world.transcript.clear()
    world.apply("good:2")
    world.steps(4)
    world.ask(api.ROLLOUT_ACTION_PROMOTE)
    world.steps(8)
    golden.check(HERE / "canary.txt", "\n".join(world.transcript) + "\n")


POLICIES = st.builds(
    pb.UpdatePolicy,
    parallelism=st.integers(0, 3),
    order=st.sampled_from([0, 1, 2]),
    canary=st.sampled_from([0, 0, 1, 2]),
    on_failure=st.sampled_from([1, 2, 3]),
    max_failure_ratio=st.sampled_from(["0", "0.5", "100%"]),
    monitor=st.sampled_from([1, 3_000]),
    delay=st.sampled_from([0, 0, 2_000]),
    progress_deadline=st.just(20_000),
)
ACTIONS = st.sampled_from(
    [
        ("apply", "good:1"),
        ("apply", "good:2"),
        ("apply", "good:3"),
        ("apply", "slow:4"),
        ("apply", "broken:5"),
        ("apply", "uneven:7"),
        ("apply", "unplaced:8"),
        ("apply", "crashing:6"),
        ("scale", "1"),
        ("scale", "4"),
        ("wait", "1"),
        ("wait", "5"),
        *(("ask", str(action)) for action in range(1, 9)),
    ]
)


def act(world: World, what: str, how: str) -> None:
    """What a person may do; a refusal is an answer like any other."""
    try:
        match what:
            case "apply":
                world.apply(how)
            case "scale":
                world.scale(int(how))
            case "ask":
                world.ask(int(how))  # type: ignore[arg-type]  # the number of an action
            case _:
                world.steps(int(how))
    except request_errors.RequestError:
        world.step()


def check_slots(world: World) -> None:
    """Never more than two tasks in a slot that have not ended, and of the live ones never two of one revision."""
    places: dict[int, list[pb.Task]] = {}
    for task in world.unended:
        if task.desired_state < pb.DESIRED_STATE_REMOVE:
            places.setdefault(task.slot, []).append(task)
    for members in places.values():
        assert len(members) <= 2, [task.meta.id for task in members]
        live = [task.revision_id for task in members if tasks.is_live(task)]
        assert len(live) == len(set(live)), "two live tasks of one revision in a slot"


@settings(max_examples=60, deadline=None)
@given(POLICIES, st.lists(ACTIONS, max_size=12))
def test_whatever_people_do_it_ends_where_they_wanted(policy: pb.UpdatePolicy, actions: list[tuple[str, str]]) -> None:
    """Safe all the way; and once a template that works is asked for and nothing holds it, it is everywhere."""
    world = World(update=policy)
    for what, how in actions:
        act(world, what, how)
        world.step()
        check_slots(world)
    world.apply("good:9")
    for action in (api.ROLLOUT_ACTION_START, api.ROLLOUT_ACTION_RESUME):
        act(world, "ask", str(action))
    world.steps(60)
    act(world, "ask", str(api.ROLLOUT_ACTION_PROMOTE))
    for _ in range(120):
        world.step()
        check_slots(world)
    assert world.images() == ["good:9"] * world.service.spec.replicas
    assert world.rollout.state == COMPLETED
    assert world.look() == plan.NOTHING, "a service at rest is left alone"


@settings(max_examples=40, deadline=None)
@given(POLICIES, st.lists(ACTIONS, max_size=8))
def test_a_good_service_stays_up_whatever_comes_after(policy: pb.UpdatePolicy, actions: list[tuple[str, str]]) -> None:
    """Start-first, one at a time: none of it ever takes a task away before another does its work, and never is more
    than one beside the others, whatever failures lead to.
    """
    policy.order, policy.parallelism = pb.UPDATE_ORDER_START_FIRST, 1
    policy.max_failure_ratio = "0"
    world = World(update=policy)
    world.until(COMPLETED)
    world.most_live = 0
    for what, how in actions:
        if what == "scale" or how in {str(api.ROLLOUT_ACTION_STOP), "crashing:6"}:
            continue
        act(world, what, how)
        for _ in range(6):
            world.step()
            slots = {task.slot for task in filter(tasks.is_ready, world.tasks)}
            assert slots == {1, 2, 3}, world.transcript[-20:]
    assert world.most_live <= 4, world.transcript
