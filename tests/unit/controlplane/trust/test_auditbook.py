"""The cluster's audit log: of all instances, in order, bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from controlplane.store import api, errors, memory
from controlplane.trust import auditbook
from controlplane.trust.auditbook import AuditBook
from protos.orch.v1 import trust_pb2 as pb
from tests.support.aio import bounded


class Clock:
    now = 1_700_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


@contextlib.asynccontextmanager
async def books(store: api.Store, *names: str) -> AsyncIterator[list[AuditBook]]:
    clock = Clock()
    made = [AuditBook(store, name, clock) for name in names]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(book.run()) for book in made]
        yield made
        for task in tasks:
            task.cancel()


async def shown(book: AuditBook, **request: int) -> list[str]:
    return [f"{one.who} by {one.instance}" for one in await book.entries(pb.ListAuditRequest(**request))]


@bounded(20)
async def test_every_instance_tells_the_same_in_the_order_of_time() -> None:
    """Whichever of them was asked."""
    store = memory.MemoryStore()
    async with books(store, "cp1", "cp2") as (first, second):
        for who, book in (("ann", first), ("bob", second), ("eve", first)):
            book.add(pb.AuditRecord(who=who, call="Delete"))

        async def all_there() -> bool:
            return len(await shown(first)) == 3

        await until_async(all_there)
        assert await shown(first) == await shown(second) == ["ann by cp1", "bob by cp2", "eve by cp1"]
        assert await shown(first, limit=1) == ["eve by cp1"]
        assert await shown(first, since=Clock.now + 3) == ["eve by cp1"]
    await store.close()


async def until_async(look: object) -> None:
    while not await look():  # type: ignore[operator]  # noqa: ASYNC110 - it asks a store
        await asyncio.sleep(0.02)


@bounded(20)
async def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    monkeypatch.setattr(auditbook, "MAX_ENTRIES", 10)
    monkeypatch.setattr(auditbook, "TRIM_EVERY", 5)
    store = memory.MemoryStore()
    async with books(store, "cp1") as (book,):
        for number in range(40):
            book.add(pb.AuditRecord(who=f"p{number}"))

        async def trimmed() -> bool:
            return "p39 by cp1" in await shown(book) and len(await shown(book)) == 10

        await until_async(trimmed)
        assert (await shown(book))[0] == "p30 by cp1"
    await store.close()


class Away(memory.MemoryStore):
    """Does not answer while it is away."""

    away = True

    async def commit(self, changes: object, *, fence: api.Fence | None = None) -> int:
        if self.away:
            raise errors.Unavailable("nobody answers")
        return await super().commit(changes, fence=fence)  # type: ignore[arg-type]


@bounded(20)
async def test_while_the_store_is_away_the_newest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is held up, and memory is bounded."""
    monkeypatch.setattr(auditbook, "MAX_WAITING", 3)
    monkeypatch.setattr(auditbook, "RETRY_S", 0.05)
    store = Away()
    async with books(store, "cp1") as (book,):
        for number in range(5):
            book.add(pb.AuditRecord(who=f"p{number}"))
        store.away = False

        async def there() -> bool:
            return bool(await shown(book))

        await until_async(there)
        assert await shown(book) == ["p2 by cp1", "p3 by cp1", "p4 by cp1"]
    await store.close()
