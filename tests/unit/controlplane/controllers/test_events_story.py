"""A story as the loop that records events sees it: what happens when, and what it decides."""

from pathlib import Path

from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import golden
from tests.unit.controlplane.controllers.test_events import World, node

HERE = Path(__file__).parent


def task(state: states.State, **status: object) -> pb.Task:
    made = pb.Task(meta=pb.Meta(id="web-1-x", name="web-1-x", namespace="default"), service="web")
    made.desired_state = pb.DESIRED_STATE_RUNNING
    made.node_id = "" if state < states.ASSIGNED else "id1"
    made.status.CopyFrom(pb.TaskStatus(state=state, **status))  # type: ignore[arg-type]  # fields by name
    return made


NEW, ASSIGNED = task(states.PENDING), task(states.ASSIGNED)
RUNS = task(states.RUNNING, ready=True)
CRASHED = [task(states.RUNNING, ready=True, restarts=number, exit_code=1) for number in (1, 2, 3)]
FAILED = task(states.FAILED, restarts=3, exit_code=1, message="it ended 4 times")

# When (ms after the start), what it is called, and the object before and after.
STORY: tuple[tuple[int, str, kinds.StoredObject | None, kinds.StoredObject | None], ...] = (
    (0, "node n1 joins", None, node()),
    (300, "a task is made", None, NEW),
    (310, "it is assigned", NEW, ASSIGNED),
    (500, "it runs", ASSIGNED, RUNS),
    (2_000, "it is restarted", RUNS, CRASHED[0]),
    (3_500, "and again", CRASHED[0], CRASHED[1]),
    (6_000, "and once more", CRASHED[1], CRASHED[2]),
    (7_500, "it fails", CRASHED[2], FAILED),
    (700_000, "node n1 is down", node(), node(state=pb.NODE_STATE_DOWN)),
    (701_500, "node n1 is back", node(state=pb.NODE_STATE_DOWN), node()),
)


def test_a_story_is_told_as_it_was() -> None:
    """Gathered, in order, equal things counted; and in between the loop sleeps. `ORCH_GOLDEN=write` writes it anew."""
    world = World()
    start_ms, lines, wake_at = world.now_ms, list[str](), None
    for after_ms, what, before, after in (*STORY, (800_000, "nothing happens any more", None, None)):
        while wake_at is not None and wake_at <= start_ms + after_ms:
            world.now_ms = wake_at
            wake_at = _look(world, lines, start_ms)
        world.now_ms = start_ms + after_ms
        lines.append(f"{after_ms:>7} ms  {what}")
        woken = after is not None and bool(world.change(before, after))
        if woken or after_ms == 0:
            wake_at = _look(world, lines, start_ms)
    told = sorted(world.events().values(), key=lambda event: event.status.first_seen)
    lines += ["", *(f"{one.status.reason} ({one.status.count}x): {one.status.message}" for one in told)]
    golden.check(HERE / "events_story.txt", "\n".join(lines) + "\n")


def _look(world: World, lines: list[str], start_ms: int) -> int | None:
    """The loop looks; when it wants to look again."""
    made = world.decide()
    if made.changes:
        lines += [f"{world.now_ms - start_ms:>7} ms    {line}" for line in made.describe().splitlines()]
    again = f"looks again at {made.wake_at - start_ms} ms" if made.wake_at else "sleeps"
    lines.append(f"{world.now_ms - start_ms:>7} ms    {again}")
    world.store(made)
    return made.wake_at
