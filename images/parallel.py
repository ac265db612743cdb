"""Work on several layers at a time: most of it is digesting, decompressing and waiting for the disk."""

from __future__ import annotations

import os
from concurrent import futures
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

MOST = 4
"""More would only wait for the disk."""


def each(work: Callable[[T], R], items: Sequence[T], *, title: str) -> list[R]:
    """The results, in order. The first failure is raised once what had begun has ended; the rest is not begun."""
    if len(items) < 2:
        return [work(item) for item in items]
    with futures.ThreadPoolExecutor(min(os.cpu_count() or 1, MOST), thread_name_prefix=title) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            return [job.result() for job in jobs]
        finally:
            for job in jobs:
                job.cancel()
