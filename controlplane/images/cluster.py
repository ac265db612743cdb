"""The images that the cluster itself keeps: names in the store, blobs on this instance's disk.

Three rules. The store says what there is: names on the disk follow it, and blobs that nothing in it needs go. What
comes in is invisible until the store has its name, which is written last. And nothing is removed while something comes
in: `changing` keeps `tidy` away, and what is not seen under its name yet is held (`holds.py`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path

import structlog

from controlplane.core import image_names, kept_images, pins
from controlplane.core import request_errors as errors
from controlplane.images import describing, pace, room
from controlplane.images.files import Shared, Threads, Upload
from controlplane.images.holds import Holds
from controlplane.images.parts import Parts
from controlplane.images.rights import NodeRights
from controlplane.store.cache import Cache
from images import archive, documents, image, reference
from images import digest as digests
from images import errors as image_errors
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

CHUNK_BYTES = 1024 * 1024
MAX_UPLOADS = 16
MAX_BLOBS = 1_000
"""Of one image: a configuration and its layers."""

_log = structlog.get_logger()


class ClusterImages:
    """`folder` is this instance's own; two processes may not share one. Call `close` at the end."""

    def __init__(self, folder: Path, known: Cache, *, limit_bytes: int = room.DEFAULT_LIMIT_BYTES) -> None:
        self.store = ImageStore(folder)
        self.threads = Threads()
        self._chunks = Threads()
        """For reads and writes of a chunk: nodes that fetch give up when nothing comes for seconds, and an import takes
        minutes.
        """
        self.rights = NodeRights(known, self.store, self._chunks)
        self._parts = Parts(folder / "parts", self.store)
        self._cache = known
        self.limit_bytes = limit_bytes
        self._holds = Holds()
        self._uploading: dict[str, int] = {}
        """Bytes that are still to come of each blob that is being sent, and that have come of each archive."""
        self._announced = 0
        """Bytes that blobs were let in for, and that came of archives, since this instance began."""
        self._admitting = asyncio.Lock()
        """Held while it is looked whether something fits, until it counts as on its way: what is let in and has come
        while the disk is looked through would be in neither number.
        """
        self._changes = 0
        self._tidying = asyncio.Lock()
        self._untidy = False
        self.lacking = asyncio.Event()
        """Something that the store names is not here."""

    # What there is ----------------------------------------------------------------------------------------------------

    def resolve(self, text: str) -> str | None:
        """The digest that an image's name stands for; None when the cluster has no such image.

        Raises `InvalidReference` for what is no reference.
        """
        reference.parse(text)
        return pins.Known.of(self._cache.snapshot().all(pb.Image).values()).find(text) or None

    def has(self, digest: str) -> bool:
        """Whether this instance can serve the blob."""
        return digests.is_digest(digest) and self.store.has(digest)

    def size_bytes(self, digest: str) -> int:
        """Of a blob; 0 when it is not here."""
        try:
            return self.store.size_bytes(digest) if digests.is_digest(digest) else 0
        except image_errors.NotFound:
            return 0

    def is_whole(self, digest: str) -> bool:
        """Whether every blob of the image is here. Blocks."""
        try:
            return self.store.has(digest) and not self.store.missing(digest)
        except image_errors.ImageError:  # its manifest was damaged on the disk, and is gone now
            return False

    async def open_blob(self, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from an offset on, and none behind its end. Raises Invalid, `images.errors.NotFound`, or
        NotReachable when it is about to come, before the first chunk.
        """
        if offset < 0:
            raise errors.Invalid(f"a blob has no byte {offset}")
        if not self.has(digest) and await self.threads.run(self._is_coming, digest):
            self.lacking.set()
            text = f"blob {digest} belongs to an image of the cluster, and is not on this instance yet"
            raise errors.NotReachable(text, hint="try again in a moment")
        file = Shared(await self._chunks.run(self.store.open, digest))
        with self._chunks.closing(file):
            await self._chunks.run(file.seek, offset)
            while chunk := await self._chunks.run(file.read, CHUNK_BYTES):
                yield chunk

    # What comes in ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """From before an image comes in until the store has its name, or will not have it."""
        async with self._tidying:
            self._changes += 1
        try:
            yield
        except BaseException:
            self._untidy = True  # what came may have no name now
            raise
        finally:
            self._changes -= 1
            self._holds.note(self._names())
            if self._untidy and not self._changes:
                await self.tidy()

    @contextlib.asynccontextmanager
    async def spooled(
        self, options: api.ImportImageOptions, chunks: AsyncIterator[bytes]
    ) -> AsyncGenerator[Upload, None]:
        """An archive that has come, whole, as long as the block runs: before `changing`, since that may take hours."""
        describing.check(options)
        upload = Upload(self.store.tmp, options.name or "upload")
        with self._one_upload(f"archive {id(upload)}") as key, self.threads.closing(upload):
            await self.threads.run(upload.open)
            await self._spool(upload, key, chunks)
            yield upload

    async def take_in(self, options: api.ImportImageOptions, upload: Upload) -> tuple[pb.Image, ...]:
        """The images of an archive, inside `changing`, as they should be stored, without ids."""
        found = await self.threads.run(self._import, options, upload)
        images = tuple(
            describing.described(name, each)
            for each in found
            for name in ([options.name] if options.name else each.names)
        )
        if not images:
            raise errors.Invalid("the archive does not say what its image is called", hint="give it a name: --name")
        for each in images:
            self._holds.expect(each.meta.name, each.status.digest, ())
        _log.info("images imported", names=[each.meta.name for each in images])
        return images

    async def missing(self, blobs: Sequence[api.BlobSize]) -> list[api.MissingBlob]:
        """Those that are not here, with what has come of them. Raises Overloaded when there is no room for the rest."""
        if len(blobs) > MAX_BLOBS:
            raise errors.Invalid(f"{len(blobs)} blobs; an image has {MAX_BLOBS} at most")
        for blob in blobs:
            describing.check_blob(blob.digest, blob.size)
        self._holds.keep(blob.digest for blob in blobs)
        missing = {blob.digest: blob.size for blob in blobs if not self.store.has(blob.digest)}
        offsets = await self.threads.run(lambda: {digest: self._parts.offset(digest) for digest in missing})
        await self.check_room(sum(missing.values()) - sum(offsets.values()))
        return [api.MissingBlob(digest=digest, offset=offset) for digest, offset in offsets.items()]

    async def push_blob(self, start: api.PushBlobStart, chunks: AsyncIterator[bytes]) -> None:
        """Takes in one blob from where it was cut. What has come stays, however this ends."""
        describing.check_blob(start.digest, start.size, start.offset)
        self._holds.keep([start.digest])
        if self.store.has(start.digest):
            return
        with self._one_upload(start.digest):
            come = await self.threads.run(self._parts.offset, start.digest)
            if start.offset > come:
                text = f"blob {start.digest} has come up to byte {come}, and this goes on at {start.offset}"
                raise errors.Outdated(text, hint="ask again what is missing")
            async with self._admitting:
                await self.check_room(start.size - start.offset)
                self._count(start.digest, start.size - start.offset)
            await self._receive(start, chunks)
            await self.threads.run(self._parts.finish, start.digest, start.size)
        self._holds.keep([start.digest])

    async def push_image(self, name: str, manifest: bytes) -> pb.Image:
        """The image of a manifest whose blobs have all come, inside `changing`; as it should be stored, without its
        id.
        """
        describing.check_name(name)
        if len(manifest) > documents.MAX_DOCUMENT_BYTES:
            raise errors.Invalid(f"the manifest of {name} is larger than 4 MiB")
        found = await self.threads.run(self._complete, name, manifest)
        image_ = describing.described(name, found)
        parts = (found.config_digest, *(layer.digest for layer in found.layers))
        self._holds.expect(image_.meta.name, found.digest, parts)
        _log.info("image pushed", name=name, digest=found.digest)
        return image_

    async def check_room(self, wanted_bytes: int, *, is_counted: bool = False) -> None:
        """Raises Overloaded when so much more does not fit beside what is here and on its way. `is_counted`: it is on
        its way itself.
        """
        mine = wanted_bytes if is_counted else 0
        used = await self.used_bytes() - mine
        if used + wanted_bytes <= self.limit_bytes:
            return
        await self.tidy()
        used = await self.used_bytes() - mine
        if used + wanted_bytes > self.limit_bytes:
            images = {one.status.digest: one for one in self._cache.snapshot().all(pb.Image).values()}
            raise room.refusal(self.limit_bytes, used, wanted_bytes, images)

    # What goes --------------------------------------------------------------------------------------------------------

    async def tidy(self) -> None:
        """The names on the disk become those of the store, and what nothing needs is removed. Late rather than wrong:
        while something comes in, or the store does not answer, nothing is.
        """
        if self._must_wait():
            return
        async with self._tidying:
            if self._must_wait():  # something has begun to come in while this waited for its turn
                return
            self._untidy = False
            snapshot, names = self._cache.snapshot(), self._names()
            self._holds.note(names)
            self._holds.lapse()
            wanted = kept_images.wanted(snapshot) | self._holds.images
            try:
                await self.threads.run(self._tidy, names, wanted, self._holds.blobs)
            except (image_errors.ImageError, OSError) as error:
                # Nothing is wrong with what there is; the next removal comes by again.
                self._untidy = True
                _log.warning("images that nobody needs stay on the disk", why=str(error))

    @property
    def is_untidy(self) -> bool:
        """Whether something may be left to remove."""
        return self._untidy or bool(self._holds)

    async def close(self) -> None:
        """Waits for what the threads are doing."""
        await self.threads.close()
        await self._chunks.close()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _must_wait(self) -> bool:
        """Whether nothing may be removed now; then it is known to be left over."""
        if self._changes or not self._cache.connected:
            self._untidy = True
            return True
        return False

    def _names(self) -> dict[str, str]:
        """The digests of the cluster's images by name, as far as the cache knows."""
        return {one.meta.name: one.status.digest for one in self._cache.snapshot().all(pb.Image).values()}

    def _is_coming(self, digest: str) -> bool:
        """It is part of an image that the store names, as far as that can be told. Blocks."""
        wanted = kept_images.whole(self._cache.snapshot())
        return digest in wanted or any(not self.is_whole(one) for one in wanted)

    @contextlib.contextmanager
    def _one_upload(self, digest: str) -> Iterator[str]:
        """One at a time for each blob, and not too many at once."""
        if digest in self._uploading:
            raise errors.NotReachable(f"somebody else sends blob {digest} at the moment", hint="try again in a moment")
        if len(self._uploading) >= MAX_UPLOADS:
            text = f"{MAX_UPLOADS} blobs and archives are being sent to the cluster already"
            raise errors.NotReachable(text, hint="try again in a moment")
        self._uploading[digest] = 0
        try:
            yield digest
        finally:
            del self._uploading[digest]

    def _count(self, key: str, size_bytes: int) -> None:
        """So much more is on its way."""
        self._uploading[key] += size_bytes
        self._announced += size_bytes

    async def _room_until(self) -> int:
        """How many bytes may have been announced before there is certainly room no more."""
        announced = self._announced
        return announced + self.limit_bytes - await self.used_bytes()

    async def used_bytes(self) -> int:
        """What images take, and what is still to come of those that are being sent."""
        before = dict(self._uploading)
        here = await self.threads.run(self._used_bytes)
        # What was written meanwhile is in one of these numbers only; so the larger counts.
        names = before.keys() | self._uploading.keys()
        return here + sum(max(before.get(name, 0), self._uploading.get(name, 0)) for name in names)

    def _used_bytes(self) -> int:
        """Blocks. Parts come first: one that becomes a blob meanwhile is counted twice, and not missed."""
        return self._parts.size_bytes() + self.store.used_bytes()

    async def _receive(self, start: api.PushBlobStart, chunks: AsyncIterator[bytes]) -> None:
        """Adds what comes to the blob's part. Raises Invalid when it is too much or too little."""
        part = await self._chunks.run(self._parts.open, start.digest, start.offset)
        come = start.offset
        with self._chunks.closing(part):
            async for chunk in _steady(chunks, f"blob {start.digest}"):
                come += len(chunk)
                if come > start.size:
                    raise errors.Invalid(f"blob {start.digest}: more than the {start.size} bytes announced")
                await self._write(part, chunk, f"blob {start.digest}")
                self._uploading[start.digest] = start.size - come
        await self._chunks.run(part.close)
        if come < start.size:
            text = f"blob {start.digest} was cut off on its way, at byte {come} of {start.size}"
            raise errors.NotReachable(text, hint="push again: it goes on there")

    async def _write(self, file: Shared, chunk: bytes, what: str) -> None:
        try:
            await self._chunks.run(file.write, chunk)
        except OSError as error:
            text = f"{what} cannot be stored in {self.store.root}: {error.strerror}"
            raise image_errors.StorageFailed(f"{text}; free some space on the control plane's disk") from error

    async def _spool(self, upload: Upload, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Looks for room again when more has come than there was room for, of this one or of others."""
        most = await self._room_until()
        async for chunk in _steady(chunks, "the archive"):
            self._count(key, len(chunk))
            if self._announced > most:
                async with self._admitting:
                    await self.check_room(self._uploading[key], is_counted=True)
                most = await self._room_until()
            await self._write(upload, chunk, "the archive")
        if not self._uploading[key]:
            raise errors.Invalid("the archive is empty", hint="send a tar file, made by `docker save` for example")

    def _import(self, options: api.ImportImageOptions, upload: Upload) -> tuple[image.Image, ...]:
        """In a thread."""
        with upload.lock:
            upload.file.seek(0)
            config = describing.config(options)
            if options.name or config:
                name = options.name or None
                return (archive.import_archive(self.store, upload.file, name=name, config=config),)
            return archive.import_all(self.store, upload.file)

    def _complete(self, name: str, manifest: bytes) -> image.Image:
        """In a thread. Raises `NotFound` when a blob has not come."""
        with self.store.hold():
            return self.store.tag(name, self.store.put_bytes(manifest))

    def _tidy(self, names: dict[str, str], wanted: frozenset[str], pinned: frozenset[str]) -> None:
        """In a thread."""
        on_disk = {name: one.digest for one in self.store.list() for name in one.names}
        for name, digest in on_disk.items():
            if names.get(image_names.canonical(name)) != digest:
                self.store.untag(name)
        # Each name that is written is flushed to the disk, which etcd shares: only what differs is.
        here = {image_names.canonical(name): digest for name, digest in on_disk.items()}
        for name, digest in names.items():
            if here.get(name) != digest and self.is_whole(digest):
                self.store.tag(name, digest)
        self._parts.sweep()
        swept = self.store.prune(keep=wanted, keep_blobs=pinned)
        if swept.blobs:
            _log.info("blobs that nobody needs are removed", blobs=swept.blobs, size_bytes=swept.size_bytes)


async def _steady(chunks: AsyncIterator[bytes], what: str) -> AsyncGenerator[bytes, None]:
    """What a client sends. Raises NotReachable when it only trickles."""
    steady = pace.steady(chunks, within_s=pace.CLIENT_S, least_bytes=pace.CLIENT_LEAST_BYTES)
    try:
        async for chunk in steady:
            yield chunk
    except TimeoutError as error:
        text = f"{what}: less than {pace.CLIENT_LEAST_BYTES >> 10} KiB came in {pace.CLIENT_S:g} s"
        raise errors.NotReachable(text, hint="push again: what has come of a blob stays") from error
