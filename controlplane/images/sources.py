"""Where an instance gets blobs that it lacks: from the other instances, and where none has them, from nodes.

The rule: nobody is believed. A blob is kept only when its bytes are those of its digest, and one that a source sends
wrong, or not within a bound, is asked of the next source.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc.aio
import structlog

from controlplane.images import pace
from controlplane.images.files import Threads
from images import blobs, documents, errors
from images.registry import threads
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc
from trust.core.identity import Role

SILENCE_S = 10.0
LEAST_BYTES = 1024 * 1024
"""A source that sends less than this in that time is given up."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who may have a blob, and what its certificate has to say that it is."""

    address: str
    role: Role


Sources = Callable[[str], Awaitable[Sequence[Source]]]
"""Those that may have a blob, the best first."""

Dial = Callable[[str, Role], grpc.aio.Channel]
"""The way to an address, where somebody of this role has to answer."""


class Fetcher:
    """Brings whole images into a store."""

    def __init__(self, store: ImageStore, threads: Threads, sources: Sources, dial: Dial) -> None:
        self._store = store
        self._threads = threads
        self._sources = sources
        self._dial = dial

    async def fetch(self, digest: str, *, room: Callable[[int], Awaitable[None]]) -> bool:
        """Have the image of a manifest here, whole; False when nobody has all of it. `room` refuses what does not
        fit.
        """
        if not self._store.has(digest) and not await self._fetch_blob(digest, None):
            return False
        while missing := await self._threads.run(self._store.missing, digest):
            await room(sum(entry.size_bytes for entry in missing))
            for entry in missing:
                if not await self._fetch_blob(entry.digest, entry.size_bytes):
                    return False
        return True

    async def _fetch_blob(self, digest: str, size_bytes: int | None) -> bool:
        for source in await self._sources(digest):
            try:
                await self._fetch_from(source, digest, size_bytes)
            except (grpc.aio.AioRpcError, errors.InvalidImage, TimeoutError) as error:
                why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error) or "too slow"
                _log.info("a blob was not got", digest=digest, source=source.address, why=why)
            else:
                _log.info("a blob was fetched", digest=digest, source=source.address)
                return True
        return False

    async def _fetch_from(self, source: Source, digest: str, size_bytes: int | None) -> None:
        most = documents.MAX_DOCUMENT_BYTES if size_bytes is None else size_bytes
        async with threads.entered(self._store.writer(digest, size_bytes)) as blob:
            await self._copy(source, digest, blob, most)

    async def _copy(self, source: Source, digest: str, blob: blobs.Writer, most_bytes: int) -> None:
        async with self._dial(source.address, source.role) as channel:
            call = dispatcher_pb2_grpc.BlobsStub(channel).Fetch(wire.FetchBlobRequest(digest=digest))
            chunks = (part.chunk async for part in call)
            async for chunk in pace.steady(chunks, within_s=SILENCE_S, least_bytes=LEAST_BYTES):
                if blob.size_bytes + len(chunk) > most_bytes:
                    raise errors.LimitExceeded(f"blob {digest}: {source.address} sends more than {most_bytes} bytes")
                await threads.run(blob.write, chunk)
