"""When an instance renews what it is known by: what its keeper does over months, in virtual time.

Certificates are real, and made in this process: virtual time waits for no other.
"""

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from controlplane.store.memory import MemoryStore
from controlplane.trust import storeplace
from controlplane.trust.membership import STORE_IDENTITY
from controlplane.trust.standing import Standing, standing
from tests.support import aio, trusted, virtualtime
from trust import errands, workshop
from trust.core import certificate, lifetime
from trust.folder import Folder

BEGAN_MS = 1_800_000_000_000
DAY_S = 86_400
INSTANCES = 6
LOOK_S = 3600
"""A keeper looks once an hour at least."""
EVERY_S = 1800

Works = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster's folders, made at `BEGAN_MS`."""
    folder = tmp_path_factory.mktemp("founded")
    trusted.found(folder, now_ms=BEGAN_MS)
    return folder


class Workbench:
    """Makes what errands ask for, or fails so many times."""

    def __init__(self) -> None:
        self.failures = 0

    async def do(self, works: Works) -> Works:
        if self.failures:
            self.failures -= 1
            raise errands.NotMade("the workshop is shut")
        return [workshop.WORKS[work["work"]](work) for work in works]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Workbench:
    made = Workbench()
    monkeypatch.setattr(errands, "_do_async", made.do)
    return made


class Clock:
    """A machine's, which goes with virtual time, and may be set."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return BEGAN_MS + self.ahead_ms + int(virtualtime.running_loop().time() * 1000)


now_ms = Clock().now_ms


@contextlib.asynccontextmanager
async def instance(
    founded: Path, folder: Path, seed: int = 1, now_ms: Callable[[], int] = now_ms
) -> AsyncIterator[Standing]:
    """One that keeps itself, over a store of its own."""
    shutil.copytree(founded, folder)
    store = MemoryStore()
    kept = standing(Folder(folder / "cp"), store, audit=folder / "audit.log", now_ms=now_ms, chance=random.Random(seed))
    async with kept as mine:
        await aio.until(lambda: bool(mine.registry.members), what="it is founded")
        yield mine
    await store.close()


def shares(lives: Sequence[certificate.Facts], moments: Sequence[int]) -> list[float]:
    """At which part of each life the next one began."""
    return [
        (moment - life.not_before_ms) / (life.not_after_ms - life.not_before_ms)
        for life, moment in zip(lives, moments, strict=False)
    ]


def part(length_s: float, length_ms: int) -> float:
    """Of a life: by so much the look at it here may be late."""
    return length_s * 1000 / length_ms


@aio.bounded(400 * DAY_S, virtual_time=True)
async def test_an_instance_renews_between_half_and_four_fifths_of_each_life(
    tmp_path: Path, founded: Path, bench: Workbench
) -> None:
    """Of every life, its own way each time; the next one begins when the key is in the record, and not before."""
    seen: list[float] = []

    async def life(number: int) -> None:
        async with instance(founded, tmp_path / str(number), number) as mine:
            lives, moments = [mine.own.facts], list[int]()
            for _ in range(2):
                renewed = lambda: mine.own.facts is not lives[-1]  # noqa: E731 - asked in this round alone
                await aio.until(renewed, what="it is renewed", timeout_s=90 * DAY_S, every_s=EVERY_S)
                moments.append(now_ms())
                lives.append(mine.own.facts)
                assert mine.registry.members["controlplane:cp1"].keys[0].digest == mine.own.facts.key_digest
                assert Folder(tmp_path / str(number) / "cp").load().facts == mine.own.facts
            seen.extend(shares(lives, moments))

    async with asyncio.TaskGroup() as group:
        for number in range(INSTANCES):
            group.create_task(life(number))
    assert len(seen) == 2 * INSTANCES
    latest = lifetime.LATEST + part(2 * EVERY_S, lifetime.LEAF_MS)
    assert all(lifetime.EARLIEST <= share <= latest for share in seen), seen
    assert max(seen) - min(seen) > 0.15, "they come at different moments"
    assert bench.failures == 0


@aio.bounded(400 * DAY_S, virtual_time=True)
async def test_what_the_store_knows_it_by_is_renewed_in_the_same_part_of_its_own_life(
    tmp_path: Path, founded: Path, bench: Workbench
) -> None:
    """Which is a year; that of the member of etcd beside it changes with it."""
    async with instance(founded, tmp_path / "one") as mine:
        beside = storeplace.member_folder(mine.folder)
        before, member = _store_facts(mine), beside.read(storeplace.CERTIFICATE)
        renewed = lambda: _store_facts(mine) != before  # noqa: E731
        await aio.until(renewed, what="it is renewed", timeout_s=365 * DAY_S, every_s=DAY_S)
        (share,) = shares([before], [now_ms()])
        assert lifetime.EARLIEST <= share <= lifetime.LATEST + part(2 * DAY_S, lifetime.STORE_MS)
        assert beside.read(storeplace.CERTIFICATE) != member
        assert mine.own.facts.not_after_ms > now_ms(), "its own was renewed all the while"
    assert bench.failures == 0


def _store_facts(mine: Standing) -> certificate.Facts:
    return certificate.read(storeplace.identity(mine.folder, STORE_IDENTITY)[1])


@aio.bounded(200 * DAY_S, virtual_time=True)
async def test_a_renewal_that_fails_is_tried_until_it_succeeds(tmp_path: Path, founded: Path, bench: Workbench) -> None:
    """An hour of failures later it is another; it would have been good for weeks."""
    async with instance(founded, tmp_path / "one") as mine:
        first = mine.own.facts
        bench.failures = LOOK_S // 5
        begun = lambda: bench.failures < LOOK_S // 5  # noqa: E731
        await aio.until(begun, what="the first failure", timeout_s=90 * DAY_S, every_s=EVERY_S)
        assert mine.own.facts is first
        await aio.until(lambda: mine.own.facts is not first, what="it is renewed", timeout_s=2 * LOOK_S, every_s=10)
        assert not bench.failures
        share, latest = shares([first], [now_ms()])[0], lifetime.LATEST + part(2 * LOOK_S, lifetime.LEAF_MS)
        assert lifetime.EARLIEST < share < latest


@aio.bounded(200 * DAY_S, virtual_time=True)
async def test_a_clock_that_is_set_is_noticed_within_an_hour(tmp_path: Path, founded: Path, bench: Workbench) -> None:
    """No timer tells of it; before half of the life nothing is renewed, after four fifths of it always."""
    clock = Clock()
    async with instance(founded, tmp_path / "one", now_ms=clock.now_ms) as mine:
        first = mine.own.facts
        for share, is_renewed in ((0.499, False), (0.801, True)):
            moment_ms = first.not_before_ms + int((first.not_after_ms - first.not_before_ms) * share)
            clock.ahead_ms += moment_ms - clock.now_ms()
            await asyncio.sleep(LOOK_S + 60)
            assert (mine.own.facts is not first) is is_renewed
    assert bench.failures == 0
