"""What a container has changed, for whoever makes an image of it: read once, then given away piece by piece.

Two rules. The container stands still only while its files are read into a file of this node, and not while they travel:
a slow reader must not stop it for long. And that file has no other reader: it is gone with whoever asked, or with the
agent.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from agent.adapters.layout import Layout
from agent.core import commit
from agent.errors import NoSuchTask, Refused, Temporary
from images import blobs, errors, scratch
from images.image import Image
from images.store import ImageStore
from protos import containers
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb

AT_ONCE = 2
"""Containers that are read at the same time: each takes a processor, and room for all that it has changed."""
CHUNK_BYTES = 512 << 10


class ContainerCommits:
    """`ports.Commits` over an agent's folders. `paused` keeps a container still for as long as a block runs."""

    def __init__(
        self,
        layout: Layout,
        store: ImageStore,
        *,
        paused: Callable[[str], AbstractAsyncContextManager[None]],
        source: Callable[[str, str], commit.Source],
    ) -> None:
        self._layout = layout
        self._store = store
        self._paused = paused
        self._source = source
        self._turns = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def taken(self, request: dpb.TaskCommitRequest) -> "AsyncIterator[TakenChanges]":
        """See `ports.Commits`."""
        source = self._source(request.task_id, request.container)
        container_id = containers.identity(request.task_id, request.container)
        reading = _Reading(self._store, source, self._layout.container(container_id) / "upper")
        async with self._turns:
            with scratch.file(self._store.tmp) as item:
                async with self._still(container_id, source, running=request.running):
                    offered = await _in_thread(lambda: reading.read_into(item.fd, request.task_id), reading.stop)
                yield TakenChanges(self._store, offered, item.fd)

    @contextlib.asynccontextmanager
    async def _still(self, container_id: str, source: commit.Source, *, running: bool) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if source.runs and not running:
                with contextlib.suppress(NoSuchTask):  # it has ended a moment ago, and stands still for good
                    await stack.enter_async_context(self._paused(container_id))
            with _told(container_id):
                yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offered:
    offer: cpb.CommitOffer
    image: Image


class _Reading:
    """One reading of a container's files, which blocks."""

    def __init__(self, store: ImageStore, source: commit.Source, upper: Path) -> None:
        self._store = store
        self._source = source
        self._upper = upper
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have `read_into` end soon, with an error that nobody hears."""
        self._stopped.set()

    def read_into(self, fd: int, task_id: str) -> _Offered:
        from images.build import changes  # only who commits pays for the builder's modules

        store, image = self._store, self._store.resolve(self._source.image)
        blob = blobs.Writer(fd, place=store.tmp, announced=None, size_bytes=None)
        below = [store.layer_path(chain) for chain in image.chain_ids]
        changes.write(self._upper, below, _Stoppable(blob, self._stopped), places=self._source.places)
        offer = cpb.CommitOffer(
            task=task_id,
            manifest=store.read_document(image.digest),
            config=store.read_document(image.config_digest),
            layer=cpb.BlobSize(digest=blob.digest, size=blob.size_bytes),
        )
        return _Offered(offer=offer, image=image)


class _Stoppable:
    """A sink that refuses more once nobody waits for it."""

    def __init__(self, blob: blobs.Writer, stopped: threading.Event) -> None:
        self._blob = blob
        self._stopped = stopped

    def write(self, data: bytes, /) -> int:
        if self._stopped.is_set():
            raise errors.StorageFailed("nobody waits for these files any more")
        return self._blob.write(data)


class TakenChanges:
    """See `ports.Taken`."""

    def __init__(self, store: ImageStore, offered: _Offered, fd: int) -> None:
        self.offer = offered.offer
        self._store = store
        self._fd = fd
        self._known = {layer.digest for layer in offered.image.layers}

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes of the changes, or of a layer of the image below. Raises Refused or Temporary."""
        with contextlib.ExitStack() as opened, _told(digest):
            if digest == self.offer.layer.digest:
                fd = self._fd
            elif digest in self._known:
                fd = opened.enter_context(self._store.open(digest)).fileno()
            else:
                raise Refused(f"{digest:.80} is no part of what was offered", reason="NotOffered")
            offset = 0
            while data := await asyncio.to_thread(os.pread, fd, CHUNK_BYTES, offset):
                offset += len(data)
                yield data


async def _in_thread(work: Callable[[], _Offered], stop: Callable[[], None]) -> _Offered:
    """What the work says. Whoever does not wait for it any more has it stopped, and waits for that."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody has to hear of it
        raise


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What `images` and the disk say, in the agent's words."""
    try:
        yield
    except errors.StorageFailed as error:
        raise Temporary(str(error), reason="DiskFailed") from error
    except errors.ImageError as error:
        raise Refused(str(error), reason="CannotBeImage") from error
    except OSError as error:
        text = f"the files of {what} changed while they were read ({error}); try again, or without `--running`"
        raise Temporary(text, reason="Changed") from error
