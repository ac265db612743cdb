"""A hundred thousand damaged and hostile archives, on all processors. What is measured is the time of each; what counts
is that none trips a reader, which would end the benchmark with the number that makes it again."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.bench.measure import Case
from tests.support import imagefuzz

CASES = 100_000
BATCH = 1000


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Another seed each time."""
    yield [
        Case(
            name=f"images.fuzz_{CASES}_each",
            unit="ms",
            ours=_measure,
            peer=None,
            peer_name="none",
            rounds=1,
            mark=5,
        )
    ]


def _measure() -> float:
    seed = int.from_bytes(os.urandom(4), "little")
    began = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        read = sum(pool.map(_batch, [(seed, start) for start in range(0, CASES, BATCH)]))
    assert 0 < read < CASES, "some are read and some are refused"
    return (time.perf_counter() - began) * 1000 / CASES


def _batch(work: tuple[int, int]) -> int:
    seed, start = work
    read = 0
    for number in range(start, start + BATCH):
        try:
            read += imagefuzz.check(imagefuzz.case(seed, number))
        except Exception as error:
            raise AssertionError(f"imagefuzz.case({seed}, {number}): {type(error).__name__}: {error}") from error
    return read
