"""Images of this node: in the store if they are there, else from the control plane, blob by blob.

Two rules: a digest is fetched and an image unpacked once, however many tasks wait for it; and whatever blocks
(hashing, the disk, the unpacking process) runs in a thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.core.container import PreparedImage
from agent.errors import Refused, Temporary
from agent.ports import Source
from images import errors, unpack
from images.image import Image
from images.store import ImageStore
from protos import running

log = structlog.get_logger()

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
FETCH_ATTEMPTS = 5
CONCURRENT_BLOBS = 3


class StoredImages:
    """Images over an `ImageStore` and the control plane. `run` it in a task of its own: downloads live there, so
    that one which a task no longer waits for still serves the others.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self._store = ImageStore(folder)
        self._source = source
        self._prepared: dict[str, PreparedImage] = {}
        self._flights: dict[str, asyncio.Future[Any]] = {}
        self._blobs = asyncio.Semaphore(CONCURRENT_BLOBS)
        self._group: asyncio.TaskGroup | None = None
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Own the downloads; ends only by being cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self.started.set()
            await asyncio.Event().wait()

    async def prepare(self, reference: str, digest: str) -> PreparedImage:
        """See `ports.Images`. What was prepared once is remembered: nothing is removed while the agent lives."""
        found = digest or await self._once(f"name {reference}", lambda: self._resolve(reference))
        if found not in self._prepared:
            self._prepared[found] = await self._once(f"image {found}", lambda: self._prepare(reference, found))
        return self._prepared[found]

    async def _once(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of work that is done once for everybody who waits for it at the same time."""
        assert self._group is not None, "`run` comes first"
        flight: asyncio.Future[T] | None = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.get_running_loop().create_future()
            self._group.create_task(self._fly(key, work, flight))
        return await asyncio.shield(flight)

    async def _fly(self, key: str, work: Callable[[], Coroutine[Any, Any, T]], flight: "asyncio.Future[T]") -> None:
        try:
            flight.set_result(await work())
        except (Refused, Temporary) as error:
            flight.set_exception(error)
            flight.exception()  # when nobody waits any more, nobody has to hear of it
        finally:
            del self._flights[key]
            flight.cancel()

    async def _resolve(self, reference: str) -> str:
        """The digest that a name stands for: the control plane knows best; without it, what is stored here."""
        try:
            return await self._source.resolve(reference)
        except Temporary as error:
            image = await self._stored(reference)
            if image is None:
                raise
            log.info("the control plane was not asked which image is meant", reference=reference, why=error.message)
            return image.digest

    async def _prepare(self, reference: str, digest: str) -> PreparedImage:
        try:
            image = await self._fetch(reference, digest)
            folders = await asyncio.to_thread(unpack.unpack, self._store, image)
        except (errors.Busy, errors.StorageFailed) as error:
            raise Temporary(str(error), reason="ImageNotReady") from error
        except errors.DigestMismatch as error:
            # On the way or on the disk; the next attempt fetches what is damaged again.
            raise Temporary(str(error), reason="ImageDamaged") from error
        except errors.ImageError as error:
            raise Refused(str(error), reason="ImageInvalid") from error
        config = image.config
        return PreparedImage(
            digest=digest,
            layers=tuple(str(folder) for folder in reversed(folders)),
            entrypoint=config.entrypoint,
            cmd=config.cmd,
            env=config.env,
            working_dir=config.working_dir,
            user=config.user,
            stop_signal=config.stop_signal,
        )

    async def _fetch(self, reference: str, digest: str) -> Image:
        """Have the whole image in the store: manifest, then configuration and layers, a few at a time."""
        try:
            if not self._store.has(digest):
                await self._fetch_blob(digest, None)
            while missing := await asyncio.to_thread(self._store.missing, digest):
                async with asyncio.TaskGroup() as group:
                    for descriptor in missing:
                        group.create_task(self._fetch_blob(descriptor.digest, descriptor.size_bytes))
        except ExceptionGroup as failures:
            raise running.leaf(failures) from failures
        return await asyncio.to_thread(self._name, reference, digest)

    def _name(self, reference: str, digest: str) -> Image:
        """Names keep it from being pruned, and let the node start it without a control plane."""
        return self._store.resolve(digest) if "@" in reference else self._store.tag(reference, digest)

    async def _fetch_blob(self, digest: str, size: int | None) -> None:
        """One blob, going on where it was cut."""
        async with self._blobs, _in_thread(self._store.writer(digest, size)) as blob:
            log.info("fetching", digest=digest, size_bytes=size)
            received, attempts = 0, 0
            while True:
                try:
                    async for chunk in self._source.fetch(digest, received):
                        received += len(chunk)
                        if size is None and received > MAX_DOCUMENT_BYTES:
                            raise Refused(f"manifest {digest} is larger than 4 MiB", reason="ImageInvalid")
                        await asyncio.to_thread(blob.write, chunk)
                except Temporary as error:
                    attempts += 1
                    if attempts >= FETCH_ATTEMPTS:
                        raise
                    log.info("a download was cut; going on", digest=digest, received=received, why=error.message)
                    await asyncio.sleep(0.2 * 2**attempts)
                else:
                    return

    async def _stored(self, reference: str) -> Image | None:
        try:
            return await asyncio.to_thread(self._store.resolve, reference)
        except errors.NotFound:
            return None
        except errors.ImageError as error:
            raise Refused(str(error), reason="ImageInvalid") from error


@contextlib.asynccontextmanager
async def _in_thread(manager: contextlib.AbstractContextManager[T]) -> AsyncGenerator[T, None]:
    """A context manager whose beginning and end block, such as one that flushes to the disk."""
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        manager.__exit__(type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)
