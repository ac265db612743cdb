"""Over a hundred thousand hostile messages, knocks at the door and manifests, on all processors.

What is measured is the time of each; what counts is that none trips an instance, or the reader of manifests, or makes
it keep anything, which would end the benchmark with what makes it again.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import hypothesis

from tests.bench.measure import Case
from tests.support import doorfuzz, knockfuzz, manifestfuzz

MESSAGES = 60_000
KNOCKS = 20_000
MANIFESTS = 40_000
HUGE = 400
PARTS = 4
KEPT_MB = 60
"""What the second half of a part's messages, knocks or manifests may add to the process: less than a kilobyte each."""


T = TypeVar("T")


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Other seeds each time."""
    yield [
        _case(f"door.fuzz_{MESSAGES}_messages_each", _messages, MESSAGES, mark=10),
        _case(f"door.fuzz_{KNOCKS}_knocks_each", _knocks, KNOCKS, mark=20),
        _case(f"door.fuzz_{MANIFESTS}_manifests_each", _manifests, MANIFESTS, mark=20),
    ]


def _case(name: str, part: Callable[[tuple[int, int]], None], count: int, *, mark: float) -> Case:
    def measure() -> float:
        seed = int.from_bytes(os.urandom(4), "little")
        began = time.perf_counter()
        with ProcessPoolExecutor() as pool:
            list(pool.map(part, [(seed, number) for number in range(PARTS)]))
        return (time.perf_counter() - began) * 1000 / count

    return Case(name=name, unit="ms", ours=measure, peer=None, peer_name="none", rounds=1, mark=mark)


def _messages(work: tuple[int, int]) -> None:
    asyncio.run(_sent(doorfuzz.target, doorfuzz.send, MESSAGES // PARTS, work))


def _knocks(work: tuple[int, int]) -> None:
    asyncio.run(_sent(knockfuzz.target, knockfuzz.send, KNOCKS // PARTS, work))


async def _sent(
    opened: Callable[[Path], contextlib.AbstractAsyncContextManager[T]],
    send: Callable[[int, range, T], Awaitable[None]],
    count: int,
    work: tuple[int, int],
) -> None:
    """A part's share, and a look at the memory halfway."""
    seed, number = work
    middle, end = count * number + count // 2, count * (number + 1)
    with tempfile.TemporaryDirectory(prefix="orch-fuzz-") as folder:
        async with opened(Path(folder)) as target:
            await send(seed, range(count * number, middle), target)
            before_mb = doorfuzz.memory_mb()
            await send(seed, range(middle, end), target)
            kept_mb = doorfuzz.memory_mb() - before_mb
            assert kept_mb < KEPT_MB, f"{send.__module__}.send({seed}, range({middle}, {end})) has left {kept_mb} MiB"


def _manifests(work: tuple[int, int]) -> None:
    """Huge ones first, which decide how large the process is; the memory is looked at halfway through the rest."""
    seed, number = work
    half, before_mb = MANIFESTS // PARTS // 2, 0
    for nth, (strategy, count) in enumerate(
        ((manifestfuzz.HUGE, HUGE // PARTS), (manifestfuzz.SOURCES, half), (manifestfuzz.SOURCES, half))
    ):
        before_mb = doorfuzz.memory_mb()

        @hypothesis.seed(seed + PARTS * nth + number)
        @hypothesis.settings(
            max_examples=count, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(data=strategy)
        def read(data: bytes) -> None:
            manifestfuzz.check(data)

        read()
    kept_mb = doorfuzz.memory_mb() - before_mb
    assert kept_mb < KEPT_MB, f"the manifests of seed {seed + PARTS * 2 + number} have left {kept_mb} MiB"
