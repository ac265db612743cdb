"""Snapshots: indexes that agree with the objects, and a past that does not change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.store import snapshots
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

TASK = kinds.of(pb.Task())


def task(name: str, *, service: str = "web", node: str = "", slot: int = 1, created_at: int = 0) -> pb.Task:
    meta = pb.Meta(id=name, name=name, namespace="default", created_at=created_at)
    return pb.Task(meta=meta, service=service, node_id=node, slot=slot)


def put(editor: snapshots.Editor, value: kinds.StoredObject) -> None:
    editor.replace(kinds.of(value), kinds.key(value), value)


def test_objects_are_found_by_name_or_id_and_by_key() -> None:
    editor = snapshots.Editor()
    service = pb.Service(meta=pb.Meta(id="s1", name="web", namespace="default"))
    node = pb.Node(meta=pb.Meta(id="n1", name="worker"))
    put(editor, service)
    put(editor, node)
    snapshot = editor.snapshot()
    assert snapshot.get(pb.Service, "web", namespace="default") is service
    assert snapshot.get(pb.Service, "web", namespace="other") is None
    assert snapshot.get(pb.Node, "n1") is node
    assert snapshot.by_key("/orch/node/_/n1") is node
    assert snapshot.by_key("/orch/future/default/x") is None
    assert list(snapshot.all(pb.Service).values()) == [service]


def test_a_task_moves_between_the_groups_when_a_node_is_chosen() -> None:
    editor = snapshots.Editor()
    put(editor, task("a"))
    put(editor, task("b"))
    before = editor.snapshot()
    put(editor, task("a", node="n1"))
    after = editor.snapshot()
    assert [each.meta.id for each in after.unassigned_tasks().values()] == ["b"]
    assert [each.meta.id for each in after.tasks_on("n1").values()] == ["a"]
    assert len(after.tasks_of("default", "web")) == 2
    assert len(before.unassigned_tasks()) == 2
    assert not before.tasks_on("n1")


def test_unchanged_objects_and_groups_are_shared_between_snapshots() -> None:
    editor = snapshots.Editor()
    put(editor, task("a", service="web"))
    put(editor, task("b", service="db"))
    before = editor.snapshot()
    assert editor.snapshot() is before
    put(editor, task("a", service="web", node="n1"))
    after = editor.snapshot()
    assert after.tasks_of("default", "db") is before.tasks_of("default", "db")
    assert after.all(pb.Service) is before.all(pb.Service)


def test_removing_what_is_not_there_is_no_change() -> None:
    assert snapshots.Editor().replace(TASK, "/orch/task/default/x", None) is None


def test_a_change_tells_before_and_after() -> None:
    editor = snapshots.Editor()
    first, second = task("a"), task("a", node="n1")
    key = kinds.key(first)
    assert editor.replace(TASK, key, first) == snapshots.Change(kind=TASK, key=key, before=None, after=first)
    assert editor.replace(TASK, key, second) == snapshots.Change(kind=TASK, key=key, before=first, after=second)
    assert editor.replace(TASK, key, None) == snapshots.Change(kind=TASK, key=key, before=second, after=None)


def test_asking_for_the_tasks_on_no_node_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="unassigned_tasks"):
        snapshots.Editor().snapshot().tasks_on("")


# One edit: which task, and its service and node, or None to remove it.
EDITS = st.lists(
    st.tuples(st.integers(0, 9), st.none() | st.tuples(st.sampled_from("xyz"), st.sampled_from(["", "n1"])))
)


@given(EDITS)
def test_the_indexes_say_the_same_as_a_search_through_all_objects(
    edits: list[tuple[int, tuple[str, str] | None]],
) -> None:
    editor = snapshots.Editor()
    taken = []
    for number, wanted in edits:
        value = task(f"t{number}", service=wanted[0], node=wanted[1]) if wanted else None
        editor.replace(TASK, kinds.key(task(f"t{number}")), value)
        taken.append(editor.snapshot())
    for snapshot in taken:
        tasks = snapshot.all(pb.Task).items()
        for service in "xyz":
            assert snapshot.tasks_of("default", service) == {k: each for k, each in tasks if each.service == service}
        assert snapshot.tasks_on("n1") == {k: each for k, each in tasks if each.node_id == "n1"}
        assert snapshot.unassigned_tasks() == {k: each for k, each in tasks if not each.node_id}
