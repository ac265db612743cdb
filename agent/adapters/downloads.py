"""Blobs on their way to this node: from other nodes where some have them, else from the control plane.

Three rules. Nobody is believed: a blob is kept only when its bytes are those of its digest. Whoever is slow, cut off or
has lied is left out, and the next one goes on where that one ended; what a liar has had a hand in begins anew. And a
blob is fetched once, however many images wait for it.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import structlog

from agent import metrics
from agent.adapters import blobplaces
from agent.adapters.blobplaces import CONTROL_PLANE
from agent.core import sharing
from agent.errors import Refused, Temporary
from agent.ports import Source
from agent.rpc import BUSY, LACKING
from images import documents, errors
from images.blobs import Writer
from images.registry import threads
from images.store import ImageStore

log = structlog.get_logger()

ATTEMPTS = 5
"""How often the control plane may cut one blob off."""
ROUNDS = 4
"""How often one blob may begin anew because somebody lied."""
CONCURRENT_BLOBS = 3
SILENCE_S = 5.0


class Downloads:
    """`arrived` is told of every blob that has come."""

    def __init__(self, store: ImageStore, source: Source, arrived: Callable[[str], None]) -> None:
        self._store = store
        self._source = source
        self._arrived = arrived
        self._slots = asyncio.Semaphore(CONCURRENT_BLOBS)
        self._places = blobplaces.Places(source)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        """By digest, while somebody wants the blob."""

    async def fetch(self, digest: str, size_bytes: int | None) -> None:
        """One blob into the store, unless it is there by the time that it is its turn. Raises Refused, Temporary, or
        what the store says.
        """
        turn = self._turns.setdefault(digest, asyncio.Lock())
        async with turn:
            if not self._store.has(digest):
                await self._fetch(digest, size_bytes)

    async def _fetch(self, digest: str, size_bytes: int | None) -> None:
        failed: dict[str, None] = {}
        async with self._slots:
            log.info("fetching", digest=digest, size_bytes=size_bytes)
            for _ in range(ROUNDS):
                used: set[str] = set()
                try:
                    async with threads.entered(self._store.writer(digest, size_bytes)) as blob:
                        await self._fill(blob, digest, size_bytes, failed, used)
                except errors.DigestMismatch:
                    if not used - {CONTROL_PLANE}:
                        raise
                    self._ban(used - {CONTROL_PLANE}, digest)
                else:
                    self._arrived(digest)
                    return
        raise Temporary(f"blob {digest} came wrong {ROUNDS} times", reason="ImageDamaged")

    async def _fill(
        self, blob: Writer, digest: str, size_bytes: int | None, failed: dict[str, None], used: set[str]
    ) -> None:
        """Write the blob, from as many places as it takes."""
        attempts = 0
        async with contextlib.aclosing(self._places.of(digest, size_bytes, failed)) as places:
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
                        self._leave_out(address, error, failed)
                else:
                    metrics.FETCHED.labels(_source(address)).inc()
                    return

    def _leave_out(self, address: str, error: Temporary, failed: dict[str, None]) -> None:
        """For a while, for whatever it is; but one that only lacks this blob may have the next, and a busy one this."""
        if error.reason == LACKING:
            failed[address] = None
        else:
            self._places.leave_out([address], blobplaces.BUSY_S if error.reason == BUSY else blobplaces.FAILED_S)

    async def _copy(self, blob: Writer, address: str, digest: str, size_bytes: int | None) -> None:
        """What one place sends. Raises Temporary when that is not all."""
        began, had = self._now(), blob.size_bytes
        async with contextlib.aclosing(self._chunks(address, digest, had)) as chunks:
            async for chunk in chunks:
                if size_bytes is None and blob.size_bytes + len(chunk) > documents.MAX_DOCUMENT_BYTES:
                    raise Refused(f"manifest {digest} is larger than 4 MiB", reason="ImageInvalid")
                await threads.run(blob.write, chunk)
                metrics.FETCHED_BYTES.labels(_source(address)).inc(len(chunk))
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
        self._places.leave_out(liars, blobplaces.BANNED_S)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _source(address: str) -> str:
    return metrics.FROM_CONTROL_PLANE if address == CONTROL_PLANE else metrics.FROM_NODE
