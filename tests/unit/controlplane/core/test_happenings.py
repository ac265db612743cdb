"""What of a change is told, as a table: before, after, and the reasons with their sentences."""

import pytest

from controlplane.core import happenings, plan, preemption
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

READY, LOST, DOWN = pb.NODE_STATE_READY, pb.NODE_STATE_DISCONNECTED, pb.NODE_STATE_DOWN


def task(state: states.State, *, node: str = "id1", **status: object) -> pb.Task:
    made = pb.Task(meta=pb.Meta(id="web-1-x", name="web-1-x", namespace="default"), service="web", node_id=node)
    made.desired_state = pb.DESIRED_STATE_RUNNING
    made.status.CopyFrom(pb.TaskStatus(state=state, **status))  # type: ignore[arg-type]  # fields by name
    return made


def makes_way(state: states.State) -> pb.Task:
    made = task(state, reason=preemption.REASON, message=ROOM)
    made.desired_state = pb.DESIRED_STATE_SHUTDOWN
    return made


def refused(*filters: str, detail: str = "no room") -> pb.Task:
    made = task(states.PENDING, node="")
    for name in filters:
        made.status.refusals.add(filter=name, detail=detail, nodes=2)
    return made


def service(*, settled: bool, generation: int = 1, observed: int = 1, message: str = "3 of 3 ready") -> pb.Service:
    made = pb.Service(meta=pb.Meta(id="s1", name="web", namespace="default", generation=generation))
    made.status.CopyFrom(pb.ServiceStatus(settled=settled, observed_generation=observed, message=message))
    return made


def rolls(
    state: pb.RolloutState.ValueType, *, revision: str = "web-2", stable: str = "web-1", why: str = ""
) -> pb.Service:
    made = service(settled=False)
    rollout = pb.RolloutStatus(state=state, revision_id=revision, stable_revision_id=stable, reason=why)
    made.status.rollout.CopyFrom(rollout)
    made.status.rollout.message = "the sentence"
    return made


def node(state: pb.NodeState.ValueType, message: str = "", *, expected_by: int = 0) -> pb.Node:
    made = pb.Node(meta=pb.Meta(id="id1", name="n1"))
    made.status.state, made.status.message, made.status.expected_by = state, message, expected_by
    return made


def held() -> pb.Node:
    made = node(DOWN)
    made.status.held = True
    return made


def told(before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> list[str]:
    """`!` marks a warning."""
    found = happenings.of_change(before, after, lambda node_id: f"name-of-{node_id}")
    return [f"{'!' if one.warning else ''}{one.reason}: {one.message}" for one in found]


NEW = task(states.PENDING, node="")
RUNS = task(states.RUNNING, ready=True)
AGAIN = "it is started again in place"
ROLLING, PAUSED, DONE = pb.ROLLOUT_STATE_ROLLING, pb.ROLLOUT_STATE_PAUSED, pb.ROLLOUT_STATE_COMPLETED
FAILED = pb.ROLLOUT_STATE_FAILED
BACK, WENT_BACK = pb.ROLLOUT_STATE_ROLLING_BACK, pb.ROLLOUT_STATE_ROLLED_BACK
WAITS = "the sentence; see `orchctl rollout promote` and `abort`"
ROOM = "makes way for task big-1-x, which has a higher priority"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, NEW, []),
        (NEW, task(states.ASSIGNED), ["Placed: placed on node name-of-id1"]),
        (NEW, refused("resources"), ["!NotPlaced: no node takes it: 2 nodes: no room"]),
        (refused("resources"), refused("resources", detail="less room"), []),
        (
            refused("resources"),
            refused("ports", "resources"),
            ["!NotPlaced: no node takes it: 2 nodes: no room; 2 nodes: no room"],
        ),
        (task(states.STARTING), RUNS, ["Started: started on node name-of-id1"]),
        (None, RUNS, ["Placed: placed on node name-of-id1", "Started: started on node name-of-id1"]),
        (
            RUNS,
            task(states.RUNNING, restarts=1, exit_code=3),
            [f"!Restarted: its container ended with exit code 3; {AGAIN}"],
        ),
        (
            RUNS,
            task(states.RUNNING, restarts=1, exit_code=137, oom_killed=True),
            [f"!Restarted: its container used more memory than its limit; {AGAIN}"],
        ),
        (RUNS, task(states.RUNNING, reason="NotReady", message="status 503"), ["!NotReady: status 503"]),
        (RUNS, task(states.RUNNING, reason="Restarting", message="restart 1 is next"), []),
        (task(states.RUNNING), RUNS, ["Ready: it is ready"]),
        (RUNS, RUNS, []),
        (RUNS, task(states.FAILED, exit_code=2), ["!Failed: its container ended with exit code 2"]),
        (
            RUNS,
            task(states.FAILED, exit_code=2, message="it ended 5 times"),
            ["!Failed: it ended 5 times; its container ended with exit code 2"],
        ),
        (RUNS, task(states.FAILED, exit_code=2, message="exit code 2"), ["!Failed: exit code 2"]),
        (
            task(states.PREPARING),
            task(states.REJECTED, reason="ImageMissing", message="no image x"),
            ["!ImageMissing: no image x"],
        ),
        (RUNS, task(states.ORPHANED, reason="NodeLost", message="node n1 was lost"), ["!NodeLost: node n1 was lost"]),
        (RUNS, task(states.COMPLETE), ["Completed: it has ended well"]),
        (RUNS, task(states.SHUTDOWN), ["Stopped: it was told to stop, and has stopped"]),
        (NEW, task(states.SHUTDOWN, node=""), []),
        (RUNS, makes_way(states.RUNNING), [f"!Preempted: {ROOM}"]),
        (
            makes_way(states.RUNNING),
            makes_way(states.SHUTDOWN),
            ["Stopped: it was told to stop, and has stopped"],
        ),
        (RUNS, None, []),
        (None, service(settled=False), []),
        (service(settled=False), service(settled=True), ["Settled: 3 of 3 ready"]),
        (service(settled=True), service(settled=True), []),
        (
            service(settled=True, generation=2),
            service(settled=True, generation=2, observed=2),
            ["Settled: 3 of 3 ready"],
        ),
        (service(settled=True), None, ["Gone: it and its tasks are gone"]),
        (None, rolls(ROLLING, stable=""), []),
        (rolls(ROLLING), rolls(PAUSED, why="2 of 3 tasks failed"), ["!RolloutFailed: the sentence"]),
        (rolls(ROLLING), rolls(PAUSED), []),
        (rolls(ROLLING, stable=""), rolls(FAILED, stable="", why="too late"), ["!RolloutFailed: the sentence"]),
        (rolls(FAILED, why="1 failed"), rolls(FAILED, why="1 failed"), []),
        (rolls(FAILED, why="1 failed"), rolls(DONE, stable="web-2"), ["RolledOut: the sentence"]),
        (rolls(PAUSED, why="2 of 3 tasks failed"), rolls(PAUSED, why="2 of 3 tasks failed"), []),
        (rolls(PAUSED, why="it failed"), rolls(ROLLING, revision="web-3"), []),
        (rolls(ROLLING), rolls(pb.ROLLOUT_STATE_WAITING), [f"CanaryWaits: {WAITS}"]),
        (rolls(ROLLING), rolls(BACK, why="1 of 3 tasks failed"), ["!RollingBack: the sentence"]),
        (
            rolls(BACK, why="1 of 3 tasks failed"),
            rolls(WENT_BACK, why="1 of 3 tasks failed"),
            ["!RolledBack: the sentence"],
        ),
        (rolls(ROLLING), rolls(DONE, stable="web-2"), ["RolledOut: the sentence"]),
        (rolls(ROLLING, stable=""), rolls(DONE, stable="web-2"), []),
        (None, node(READY), ["Joined: it has joined the cluster"]),
        (node(READY), node(LOST, "its agent's session was lost"), ["!Disconnected: its agent's session was lost"]),
        (node(READY), node(LOST, "it is expected back", expected_by=1), ["Restarting: it is expected back"]),
        (node(LOST), node(DOWN, "too long"), ["!Down: too long"]),
        (node(DOWN), node(READY), ["Returned: its agent holds a session again"]),
        (node(READY), node(READY, "other"), []),
        (node(DOWN), held(), [f"!Held: {happenings.HELD}, or `orchctl node lost n1` says that it does not"]),
        (held(), held(), []),
        (held(), node(DOWN), []),
        (node(DOWN), None, ["Removed: its record was removed"]),
        (None, pb.Event(meta=pb.Meta(id="e", name="e", namespace="default")), []),
    ],
)
def test_what_is_told(before: kinds.StoredObject | None, after: kinds.StoredObject | None, expected: list[str]) -> None:
    assert told(before, after) == expected


def test_a_task_that_drains_is_no_trouble() -> None:
    """It was asked to stop: that it is not ready then is as it should be."""
    leaving = plan.copy(task(states.RUNNING, reason="Draining", message="draining"))
    leaving.desired_state = pb.DESIRED_STATE_SHUTDOWN
    assert told(RUNS, leaving) == []


def test_a_task_is_told_about_with_its_service() -> None:
    (one,) = happenings.of_change(NEW, task(states.ASSIGNED), str)
    assert one.about == pb.EventObject(kind="task", namespace="default", name="web-1-x", id="web-1-x", service="web")


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    text = "line\n" * 1000
    (one,) = happenings.of_change(RUNS, task(states.ORPHANED, message=text), str)
    assert len(one.message) == happenings.MAX_MESSAGE
    assert "\n" not in one.message
