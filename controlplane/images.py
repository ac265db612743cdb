"""The images that the cluster itself keeps: names in the store, blobs on this instance's disk.

Two rules. Nothing here blocks the event loop: files are touched by a few threads of this module's own. And a file is
closed by the thread that used it last, since a call that is cancelled leaves its thread at work.
"""

import asyncio
import contextlib
import io
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import structlog

from controlplane.core import image_names
from controlplane.core import request_errors as errors
from controlplane.core.trust import owned
from controlplane.store.cache import Cache
from images import archive, image, reference
from images import errors as image_errors
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

CHUNK_BYTES = 1024 * 1024
MAX_ARCHIVE_BYTES = 16 * 1024**3
THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")

_log = structlog.get_logger()


class ClusterImages:
    """`folder` is this instance's own; two processes may not share one. Call `close` at the end."""

    def __init__(self, folder: Path, known: Cache) -> None:
        self._store = ImageStore(folder)
        self._cache = known
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="images")
        self._open: set[_Shared] = set()
        self._reached: dict[str, frozenset[str]] = {}
        """By an image's digest: its blobs. What a digest stands for never changes."""

    def resolve(self, text: str) -> str | None:
        """The digest that an image's name stands for; None when the cluster has no such image.

        Raises `InvalidReference` for what is no reference.
        """
        wanted = image_names.digest_of(text)
        state = self._cache.snapshot()
        if wanted is not None:
            return wanted if any(found.status.digest == wanted for found in state.all(pb.Image).values()) else None
        named = state.get(pb.Image, image_names.canonical(text))
        return named.status.digest if named is not None else None

    def check_name(self, node_id: str, text: str) -> None:
        """That a task of the node needs the image. Raises Forbidden."""
        if not owned.may_have(self._cache.snapshot(), node_id, text):
            raise errors.Forbidden(f"no task of the node {node_id} runs the image {text:.200}")

    async def check_blob(self, node_id: str, digest: str) -> None:
        """That a blob is of an image that a task of the node needs. Raises Forbidden."""
        state = self._cache.snapshot()
        names = owned.images(state, node_id)
        known = {
            each.status.digest
            for each in state.all(pb.Image).values()
            if each.meta.name in names or each.status.digest in names
        }
        for root in known - self._reached.keys():
            found = await self._run(self._store.reached, root)
            if found:  # else another instance keeps it, or this one will only later
                self._reached[root] = found
        for gone in self._reached.keys() - {each.status.digest for each in state.all(pb.Image).values()}:
            del self._reached[gone]
        if not any(digest in self._reached.get(root, ()) for root in known):
            raise errors.Forbidden(f"no task of the node {node_id} runs an image with the blob {digest:.80}")

    async def open_blob(self, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from an offset on. Raises `images.errors.NotFound` before the first chunk."""
        file = _Shared(await self._run(self._store.open, digest))
        with self._closed_at_last(file):
            await self._run(file.seek, offset)
            while chunk := await self._run(file.read, CHUNK_BYTES):
                yield chunk

    async def import_stream(
        self, options: api.ImportImageOptions, chunks: AsyncIterator[bytes]
    ) -> tuple[pb.Image, ...]:
        """Takes in an archive. Answers with the images as they should be stored, without ids."""
        _check(options)
        title = options.name or "upload"
        upload = _Upload(self._store.tmp, title)
        with self._closed_at_last(upload):
            await self._run(upload.open)
            await self._spool(upload, chunks)
            found = await self._run(self._import, options, upload)
        images = tuple(
            _described(name, each) for each in found for name in ([options.name] if options.name else each.names)
        )
        if not images:
            raise errors.Invalid("the archive does not say what its image is called", hint="give it a name: --name")
        _log.info("images imported", names=[each.meta.name for each in images])
        return images

    async def settle(self, images: Sequence[pb.Image]) -> None:
        """After an import that the cluster did not take: the names mean again what the cluster says, or nothing."""
        state = self._cache.snapshot()
        for name in (each.meta.name for each in images):
            known = state.get(pb.Image, name)
            await self._run(self._settle, name, known.status.digest if known is not None else None)

    async def forget(self, name: str) -> None:
        """Removes an image's name from the disk, and the blobs that nothing else needs. Missing ones are no error."""
        # What the cluster knows stays, whatever the names on this disk say.
        wanted = [known.status.digest for known in self._cache.snapshot().all(pb.Image).values()]
        try:
            await self._run(self._store.remove, name, keep=wanted)
        except image_errors.NotFound:
            _log.debug("the image is kept by another instance", image=name)
        except image_errors.ImageError as error:
            # The name is gone from the cluster, which is what was asked for; the next removal collects the blobs.
            _log.warning("blobs of a removed image stay on the disk", image=name, why=str(error))

    async def close(self) -> None:
        """Waits for what the threads are doing."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for file in self._open.copy():
            self._finish(file)

    @contextlib.contextmanager
    def _closed_at_last(self, file: "_Shared") -> Iterator[None]:
        """The file is closed by a thread some time after the block, or by `close`."""
        self._open.add(file)
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # the threads have ended: `close` is at it
                self._threads.submit(self._finish, file)

    def _finish(self, file: "_Shared") -> None:
        file.close()
        self._open.discard(file)

    async def _spool(self, upload: "_Upload", chunks: AsyncIterator[bytes]) -> None:
        size_bytes = 0
        async for chunk in chunks:
            size_bytes += len(chunk)
            if size_bytes > MAX_ARCHIVE_BYTES:
                text = f"the archive is larger than {MAX_ARCHIVE_BYTES // 1024**3} GiB, the most that the cluster keeps"
                raise errors.Invalid(text, hint="put less into the image")
            try:
                await self._run(upload.write, chunk)
            except OSError as error:
                text = f"the archive cannot be stored in {self._store.tmp}: {error.strerror}"
                raise image_errors.StorageFailed(f"{text}; free some space on the control plane's disk") from error
        if not size_bytes:
            raise errors.Invalid("the archive is empty", hint="send a tar file, made by `docker save` for example")

    def _import(self, options: api.ImportImageOptions, upload: "_Upload") -> tuple[image.Image, ...]:
        """In a thread."""
        with upload.lock:
            upload.file.seek(0)
            config = _config(options)
            if options.name or config:
                name = options.name or None
                return (archive.import_archive(self._store, upload.file, name=name, config=config),)
            return archive.import_all(self._store, upload.file)

    def _settle(self, name: str, digest: str | None) -> None:
        """In a thread. The new blobs go with the next removal."""
        with contextlib.suppress(image_errors.NotFound):  # the name was never there
            self._store.untag(name)
        if digest is not None:
            with contextlib.suppress(image_errors.NotFound):  # another instance keeps it
                self._store.tag(name, digest)

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))


class _Shared:
    """A file that one thread at a time uses, so that it is never closed under another's hands."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lock = threading.Lock()

    def read(self, size_bytes: int) -> bytes:
        with self.lock:
            return self.file.read(size_bytes)

    def write(self, data: bytes) -> None:
        with self.lock:
            self.file.write(data)

    def seek(self, offset: int) -> None:
        with self.lock:
            self.file.seek(offset)

    def close(self) -> None:
        with self.lock:
            self.file.close()


class _Upload(_Shared):
    """A file without a name on the disk, so that a crash leaves nothing; errors call it by `title`.

    It is opened in a thread while its owner may be cancelled; closed before that, it is never opened.
    """

    def __init__(self, folder: Path, title: str) -> None:
        super().__init__(io.BytesIO())
        self._folder = folder
        self._title = title

    def open(self) -> None:
        with self.lock:
            if self.file.closed:
                return
            number, path = tempfile.mkstemp(dir=self._folder, prefix="upload-")
            Path(path).unlink(missing_ok=True)  # a sweep of the store may have been faster
            self.file = os.fdopen(number, "w+b")
            self.file.raw.name = self._title  # type: ignore[attr-defined]  # what `file.name` shows


def _check(options: api.ImportImageOptions) -> None:
    """Before the upload, not after it."""
    if options.name:
        parsed = reference.parse(options.name)
        if parsed.digest is not None:
            raise errors.Invalid(f"an image cannot be named by a digest: {options.name}", hint="name it like hello:1.0")


def _config(options: api.ImportImageOptions) -> image.Config | None:
    """What the options say of a root file system; None when they say nothing."""
    said = image.Config(
        entrypoint=tuple(options.entrypoint),
        cmd=tuple(options.cmd),
        env=tuple(options.env),
        working_dir=options.working_dir,
        user=options.user,
        exposed_ports=tuple(port if "/" in port else f"{port}/tcp" for port in options.expose),
    )
    return said if said != image.Config() else None


def _described(name: str, found: image.Image) -> pb.Image:
    platform = f"{found.platform.os}/{found.platform.architecture}"
    return pb.Image(
        meta=pb.Meta(name=image_names.canonical(name)),
        status=pb.ImageStatus(
            digest=found.digest,
            size=found.size_bytes,
            platform=f"{platform}/{found.platform.variant}" if found.platform.variant else platform,
            layers=len(found.layers),
        ),
    )
