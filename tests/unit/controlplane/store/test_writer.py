"""Packing changes into commits."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.store import api, memory, writer
from tests.support import aio


def group(name: str, size: int) -> list[api.Change]:
    return [api.Put(key=f"/{name}/{i}", value=b"") for i in range(size)]


def test_single_changes_fill_commits_and_the_fence_takes_a_place() -> None:
    singles = [[api.Put(key=f"/{i}", value=b"")] for i in range(300)]
    assert [len(packed) for packed in writer.pack(singles, fenced=False)] == [127, 127, 46]
    assert [len(packed) for packed in writer.pack(singles, fenced=True)] == [126, 126, 48]


def test_a_group_is_never_split() -> None:
    groups = [group("a", 100), group("b", 50), group("c", 77)]
    assert list(writer.pack(groups, fenced=False)) == [groups[0], groups[1] + groups[2]]


def test_large_values_split_commits_before_the_limit_of_bytes() -> None:
    groups = [[api.Put(key=f"/{i}", value=b"x" * 500_000)] for i in range(5)]
    assert [len(packed) for packed in writer.pack(groups, fenced=False)] == [2, 2, 1]


def test_two_groups_that_touch_one_key_come_one_after_the_other() -> None:
    put, delete = api.Put(key="/a", value=b""), api.Delete(key="/a")
    assert list(writer.pack([[put], [delete]], fenced=False)) == [[put], [delete]]


@given(st.lists(st.integers(0, 126), max_size=40))
def test_whatever_the_groups_every_change_is_written_once_in_order_within_the_limits(sizes: list[int]) -> None:
    groups = [group(f"{number}", size) for number, size in enumerate(sizes)]
    commits = list(writer.pack(groups, fenced=True))
    assert [change for commit in commits for change in commit] == [change for each in groups for change in each]
    for commit in commits:
        api.check_commit(commit, api.Fence(key="/leader", version=1))
    starts = {commit[0].key for commit in commits}
    assert all(change.key not in starts for each in groups for change in each[1:]), "a group was split"


@aio.bounded(5)
async def test_write_returns_the_last_revision_or_none() -> None:
    store = memory.MemoryStore()
    assert await writer.write(store, []) is None
    assert await writer.write(store, [group("a", 100), group("b", 100)]) == 3
    assert len((await store.list("/")).entries) == 200
