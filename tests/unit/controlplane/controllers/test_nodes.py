"""The tasks of nodes that are lost, or that somebody has removed while they were."""

from controlplane.controllers.nodes import NodeLoss
from controlplane.core import plan
from controlplane.dispatcher.sessions import Sessions
from controlplane.store.snapshots import Editor, Snapshot
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS


def test_a_node_that_is_removed_while_it_is_lost_has_its_fenced_tasks_waited_for() -> None:
    """Counted from when it was seen to be lost, and not anew from its removal."""
    clock = [1_000_000]
    loss = NodeLoss(Sessions(), lambda: clock[0])
    fenced = build.task(1, node="n1")
    fenced.fence = 10_000
    lost, other, third = build.node("n1", state=pb.NODE_STATE_DOWN), build.node("n2"), build.node("n3")
    keys = frozenset({"n1"})

    def decide(*values: kinds.StoredObject) -> tuple[list[pb.Task], int | None]:
        made = loss.decide(snapshot(*values), keys, NOW_MS)
        return [one.value for one in made.changes if isinstance(one.value, pb.Task)], made.wake_at

    assert decide(lost, other, third, fenced) == ([], NOW_MS + 12_010)
    clock[0] += 5_000
    assert decide(other, third, fenced) == ([], NOW_MS + 7_010), "its record is gone, and it may live"
    clock[0] += 7_009
    assert decide(other, third, fenced) == ([], NOW_MS + 1)
    clock[0] += 1
    ended, wake_at = decide(other, third, fenced)
    assert ([task.meta.id for task in ended], wake_at) == ([fenced.meta.id], None)


def test_the_brake_is_told_of_when_a_node_is_down_and_taken_back_when_others_return() -> None:
    loss = NodeLoss(Sessions(), lambda: 1_000_000)
    down = [build.node(f"n{i}", state=pb.NODE_STATE_DOWN) for i in (1, 2)]
    task = build.task(1, node="n1")
    known = snapshot(*down, build.node("n3"), task)
    made = loss.decide(known, frozenset({"n1", "n2", "n3"}), NOW_MS + 60_000)
    assert [(one.value.meta.id, one.value.status.held) for one in made.changes if isinstance(one.value, pb.Node)] == [
        ("n1", True),
        ("n2", True),
    ]
    assert len(made.changes) == 2
    for node in down:
        node.status.held = True
    back = build.node("n2")
    back.status.held = True
    made = loss.decide(snapshot(down[0], back, build.node("n3"), task), frozenset({"n1", "n2"}), NOW_MS + 60_000)
    assert [one.value.meta.id for one in made.changes] == ["n1", task.meta.id, "n2"]
    assert not any(one.value.status.held for one in made.changes if isinstance(one.value, pb.Node))


def test_a_node_with_a_session_keeps_its_tasks() -> None:
    known = snapshot(build.node("n1"), build.task(1, node="n1"))
    assert NodeLoss(Sessions(), lambda: 0).decide(known, frozenset({"n1"}), NOW_MS + 10**9) == plan.NOTHING


def snapshot(*values: kinds.StoredObject) -> Snapshot:
    editor = Editor()
    for value in values:
        editor.replace(kinds.of(value), kinds.key(value), value)
    return editor.snapshot()
