"""Blobs on their way into a store.

Rules. One download of a blob at a time, whoever shares the store. What has come is kept while the connection is made
anew: the rest is asked for with Range, from the next mirror when there is one, and the digest is that of the whole. And
a transfer that brings nothing, or next to nothing, is bounded as if it had been cut.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from images import errors as image_errors
from images import progress as progresses
from images.registry import errors, retry, sources, threads, turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from images.manifest import Descriptor
    from images.registry.config import Bounds
    from images.registry.registries import Registries
    from images.registry.repository import Repository
    from images.store import ImageStore


async def fetch(
    store: ImageStore,
    entry: Descriptor,
    places: sources.Sources,
    *,
    registries: Registries,
    watcher: progresses.Progress,
) -> None:
    """Have a blob in the store, as `store.missing` lists it, from places that other blobs of one piece of work share.

    Call it inside `store.hold()`, or the next `prune` takes the blob for litter.
    """
    async with turns.taken(store, entry.digest):
        if store.has(entry.digest):
            watcher.step(entry.digest, "exists", entry.size_bytes, entry.size_bytes)
            return
        async with registries.transfers.downloads:
            await _fetch(store, entry, places, registries, watcher)
        watcher.step(entry.digest, "done", entry.size_bytes, entry.size_bytes)


async def _fetch(
    store: ImageStore, entry: Descriptor, places: sources.Sources, registries: Registries, watcher: progresses.Progress
) -> None:
    while True:
        senders: set[Repository] = set()
        try:
            return await _copy(store, entry, places, registries, watcher, senders)
        except image_errors.DigestMismatch:
            # Wrong bytes, of a mirror most likely: all of it comes again, from those who had no part in it.
            if not places.drop_liars(senders):
                raise


async def _copy(
    store: ImageStore,
    entry: Descriptor,
    places: sources.Sources,
    registries: Registries,
    watcher: progresses.Progress,
    senders: set[Repository],
) -> None:
    async with (
        threads.entered(store.writer(entry.digest, entry.size_bytes)) as blob,
        contextlib.aclosing(_pieces(entry, places, registries, senders)) as pieces,
    ):
        watcher.step(entry.digest, "downloading", 0, entry.size_bytes)
        async for data in pieces:
            await threads.run(blob.write, data)
            watcher.step(entry.digest, "downloading", blob.size_bytes, entry.size_bytes)


async def _pieces(
    entry: Descriptor, places: sources.Sources, registries: Registries, senders: set[Repository]
) -> AsyncGenerator[bytes, None]:
    """The bytes of a blob up to its announced size, over as many connections as that takes.

    Whoever sends some of them is noted among the `senders`.
    """
    offset = 0
    patience, untried = retry.Patience(registries.config.retry), places.count - 1
    # So much has to come for what failed before to be forgiven: a byte a connection would never end.
    enough = max(1, min(registries.config.bounds.slow_bytes, entry.size_bytes // 8))
    while offset < entry.size_bytes:
        began, place = offset, places.current
        try:
            async with contextlib.aclosing(_one_connection(entry, place, registries, offset)) as pieces:
                async for data in pieces:
                    senders.add(place)
                    offset += len(data)
                    yield data
            error: errors.RegistryError = _early(entry, place)
        except (errors.Unavailable, errors.Unreachable) as failure:
            error = failure
        except errors.RegistryError:
            if not places.drop(place):
                raise
            continue
        if offset - began >= enough:
            patience.progressed()
            untried = places.count - 1
        if offset >= entry.size_bytes:
            return
        places.failed(place)
        if untried <= 0:
            await patience.after(error)
        untried -= 1


def _early(entry: Descriptor, place: Repository) -> errors.Unavailable:
    return errors.Unavailable(f"blob {entry.digest} of {place}: ends before its {entry.size_bytes} bytes; fetch again")


async def _one_connection(
    entry: Descriptor, place: Repository, registries: Registries, offset: int
) -> AsyncGenerator[bytes, None]:
    speed = _Speed(registries.config.bounds, what=f"blob {entry.digest} of {place}")
    async with place.blob(entry.digest, offset=offset) as blob:
        while data := await speed.measure(blob.read()):
            if new := blob.fresh(data):
                yield new
            await registries.transfers.incoming.spend(len(data))


class _Speed:
    """Tells a connection that is slow from one that is kept waiting by our own disk or bound."""

    def __init__(self, bounds: Bounds, *, what: str) -> None:
        self._bounds = bounds
        self._what = what
        self._waited_s = 0.0
        self._size_bytes = 0

    async def measure(self, reading: Awaitable[bytes]) -> bytes:
        began_s = time.monotonic()
        data = await reading
        self._waited_s += time.monotonic() - began_s
        self._size_bytes += len(data)
        if self._waited_s >= self._bounds.slow_s:
            if self._size_bytes < self._bounds.slow_bytes:
                bound = f"{self._bounds.slow_bytes} bytes in {self._bounds.slow_s:g} s"
                raise errors.Unavailable(f"{self._what}: slower than {bound}; try again later")
            self._waited_s, self._size_bytes = 0.0, 0
        return data
