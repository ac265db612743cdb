"""Members as the store has them: known at once where a change depends on it, and never taken back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controlplane.store import api
from controlplane.store.memory import MemoryStore
from controlplane.trust.registry import MEMBERS, Registry, member_key
from protos.orch.v1 import trust_pb2 as pb
from tests.support import aio


@contextlib.asynccontextmanager
async def followed(store: MemoryStore) -> AsyncIterator[Registry]:
    registry = Registry(store)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(registry.run())
        await registry.loaded.wait()
        yield registry
        running.cancel()


def member(name: str, token: str = "") -> api.Put:
    return api.Put(key=member_key(name), value=pb.MemberRecord(name=name, token=token).SerializeToString())


@aio.bounded(20)
async def test_catching_up_does_not_wait_for_what_is_written_elsewhere() -> None:
    """Every status report raises the store's revision, and none of them is news of a member."""
    store = MemoryStore()
    async with followed(store) as registry:
        await store.commit([member("node:a")])
        await store.commit([api.Put(key="/orch-instances/cp1", value=b"here")])
        async with asyncio.timeout(1):
            await registry.catch_up()
            assert registry.members.keys() == {"node:a"}
            await registry.remove("node:a")
            assert not registry.members
            await registry.remove("node:a")


@aio.bounded(20)
async def test_what_was_caught_up_with_is_not_taken_back_by_older_news() -> None:
    """News of what a list has told already come late, and in order: nobody is let in again by them for a moment."""
    store = MemoryStore()
    told: list[set[str]] = []
    async with followed(store) as registry:
        with registry.listening(lambda _: told.append(set(registry.members))):
            store.pause_watches()
            await store.commit([member("node:a")])
            await store.commit([api.Delete(key=MEMBERS + "node:a"), member("node:b")])
            await store.commit([member("node:b", token="t")])
            await registry.catch_up()
            store.resume_watches()
            await store.commit([member("node:c")])
            await aio.until(lambda: "node:c" in registry.members, what="the watch has caught up", timeout_s=5)
    assert told == [{"node:b"}, {"node:b", "node:c"}]
    assert registry.members["node:b"].token == "t"
