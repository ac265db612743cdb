"""Blobs on their way to this node: from other nodes where some have them, else from the control plane.

Two rules. Nobody is believed: a blob is kept only when its bytes are those of its digest. And whoever is slow, cut off
or has lied is left out, and the next one goes on where that one ended; what a liar has had a hand in begins anew.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

import structlog

from agent.core import sharing
from agent.errors import Refused, Temporary
from agent.ports import Source
from images import errors
from images.blobs import Writer
from images.store import ImageStore

log = structlog.get_logger()

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
ATTEMPTS = 5
"""How often the control plane may cut one blob off."""
ROUNDS = 4
"""How often one blob may begin anew because somebody lied."""
CONCURRENT_BLOBS = 3
SILENCE_S = 5.0
BANNED_S = 600.0
LONGEST_WAIT_S = 60.0
"""So long one waits for somebody who is free; then the task says what it waits for, and asks again."""
CONTROL_PLANE = ""
"""Stands for it among the addresses of nodes."""


class Downloads:
    """`arrived` is told of every blob that has come."""

    def __init__(self, store: ImageStore, source: Source, arrived: Callable[[str], None]) -> None:
        self._store = store
        self._source = source
        self._arrived = arrived
        self._slots = asyncio.Semaphore(CONCURRENT_BLOBS)
        self._banned: dict[str, float] = {}

    async def fetch(self, digest: str, size_bytes: int | None) -> None:
        """One blob into the store. Raises Refused, Temporary, or what the store says."""
        failed: set[str] = set()
        async with self._slots:
            log.info("fetching", digest=digest, size_bytes=size_bytes)
            for _ in range(ROUNDS):
                used: set[str] = set()
                try:
                    async with in_thread(self._store.writer(digest, size_bytes)) as blob:
                        await self._fill(blob, digest, size_bytes, failed, used)
                except errors.DigestMismatch:
                    if not used - {CONTROL_PLANE}:
                        raise
                    self._ban(used - {CONTROL_PLANE}, digest)
                    failed |= used
                else:
                    self._arrived(digest)
                    return
        raise Temporary(f"blob {digest} came wrong {ROUNDS} times", reason="ImageDamaged")

    async def _fill(self, blob: Writer, digest: str, size_bytes: int | None, failed: set[str], used: set[str]) -> None:
        """Write the blob, from as many places as it takes."""
        attempts = 0
        async with contextlib.aclosing(self._places(digest, size_bytes, failed)) as places:
            async for address in places:
                used.add(address)
                try:
                    await self._copy(blob, address, digest, size_bytes)
                except Temporary as error:
                    log.info("a download was cut; going on", digest=digest, received=blob.size_bytes, why=error.message)
                    if address == CONTROL_PLANE:
                        attempts += 1
                        if attempts >= ATTEMPTS:
                            raise
                        await asyncio.sleep(0.2 * 2**attempts)
                    else:
                        failed.add(address)
                else:
                    return

    async def _places(self, digest: str, size_bytes: int | None, failed: set[str]) -> AsyncGenerator[str, None]:
        """Where to fetch from next. Raises Temporary when nobody is free for long."""
        while not sharing.is_shared(size_bytes):
            yield CONTROL_PLANE
        waiting_since = self._now()
        while True:
            found = await self._source.find(digest, sorted(failed | self._banned_now()))
            for address in found.addresses:
                waiting_since = self._now()
                if address not in failed:
                    yield address
            if found.here:
                waiting_since = self._now()
                yield CONTROL_PLANE
            if self._now() - waiting_since > LONGEST_WAIT_S:
                raise Temporary(f"nobody who has blob {digest} is free to send it", reason="ImageNotReady")

    async def _copy(self, blob: Writer, address: str, digest: str, size_bytes: int | None) -> None:
        """What one place sends. Raises Temporary when that is not all."""
        began, had = self._now(), blob.size_bytes
        async with contextlib.aclosing(self._chunks(address, digest, had)) as chunks:
            async for chunk in chunks:
                if size_bytes is None and blob.size_bytes + len(chunk) > MAX_DOCUMENT_BYTES:
                    raise Refused(f"manifest {digest} is larger than 4 MiB", reason="ImageInvalid")
                await asyncio.to_thread(blob.write, chunk)
                slow = sharing.is_too_slow(blob.size_bytes - had, self._now() - began)
                if address and slow:
                    raise Temporary(f"{address} is too slow")
        if size_bytes is not None and blob.size_bytes < size_bytes:
            raise Temporary(f"{address or 'the control plane'} ended at byte {blob.size_bytes} of {size_bytes}")

    async def _chunks(self, address: str, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        """What a place sends; silence is an end."""
        parts: AsyncIterator[bytes] = self._source.fetch(digest, offset, address)
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    chunk = await anext(parts, None)
            except TimeoutError as error:
                raise Temporary(f"{address or 'the control plane'} sent nothing for {SILENCE_S:g} s") from error
            if chunk is None:
                return
            yield chunk

    def _ban(self, liars: set[str], digest: str) -> None:
        log.warning(
            "other bytes came than the digest says; these nodes are not asked for a while",
            digest=digest,
            nodes=sorted(liars),
        )
        self._banned.update(dict.fromkeys(liars, self._now() + BANNED_S))

    def _banned_now(self) -> set[str]:
        self._banned = {address: until for address, until in self._banned.items() if until > self._now()}
        return set(self._banned)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def in_thread(manager: contextlib.AbstractContextManager[T]) -> AsyncGenerator[T, None]:
    """A context manager whose beginning and end block, such as one that flushes to the disk."""
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        manager.__exit__(type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)
