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
    monkeypatch.setattr(auditbook, "MAX_DONE", 10)
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


@pytest.mark.parametrize(("flood", "left"), [("may not", 5), ("", 8)])
@bounded(20)
async def test_nobody_pushes_out_what_others_did(flood: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody is refused, or does something. Refusals have a bound of their own."""
    monkeypatch.setattr(auditbook, "MAX_DONE", 10)
    monkeypatch.setattr(auditbook, "MAX_REFUSED", 6)
    monkeypatch.setattr(auditbook, "TRIM_EVERY", 5)
    store = memory.MemoryStore()
    async with books(store, "cp1") as (book,):
        for who, refused in (("ann", ""), ("bob", "may not"), ("ann", "")):
            book.add(pb.AuditRecord(who=who, role="editor", refused=refused))
        for number in range(40):
            book.add(pb.AuditRecord(who="eve", role="editor", call=f"{number}", refused=flood))

        async def trimmed() -> bool:
            there = await book.entries(pb.ListAuditRequest())
            return "39" in [one.call for one in there] and len(there) == 3 + left

        await until_async(trimmed)
        there = await book.entries(pb.ListAuditRequest())
        assert [one.who for one in there if one.who != "eve"] == ["ann", "bob", "ann"]
        assert [one.call for one in there if one.who == "eve"] == [f"{number}" for number in range(40 - left, 40)]
    await store.close()


class Away(memory.MemoryStore):
    """Does not answer while it is away."""

    away = True

    async def commit(self, changes: object, *, fence: api.Fence | None = None) -> int:
        if self.away:
            raise errors.Unavailable("nobody answers")
        return await super().commit(changes, fence=fence)  # type: ignore[arg-type]


@bounded(20)
async def test_while_the_store_is_away_the_newest_of_everybody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is held up, and memory is bounded. Of those who have told too much the oldest go."""
    monkeypatch.setattr(auditbook, "MAX_WAITING", 3)
    monkeypatch.setattr(auditbook, "TRIM_EVERY", 2)
    monkeypatch.setattr(auditbook, "RETRY_S", 0.05)
    store = Away()
    async with books(store, "cp1") as (book,):
        for number in range(6):
            book.add(pb.AuditRecord(who="ann" if number == 1 else "eve", role="editor", call=f"{number}"))
        store.away = False

        async def there() -> bool:
            return bool(await shown(book))

        await until_async(there)
        assert [one.call for one in await book.entries(pb.ListAuditRequest())] == ["1", "3", "4", "5"]
    await store.close()
