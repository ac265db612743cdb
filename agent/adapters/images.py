"""Images of this node: in the store if they are there, else blob by blob from where they are.

Two rules: a digest is fetched and an image unpacked once, however many tasks wait for it; and whatever blocks
(hashing, the disk, the unpacking process) runs in a thread.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.adapters import imagenames
from agent.adapters.downloads import Downloads
from agent.adapters.registries import Outside
from agent.core import imageroom
from agent.core.container import PreparedImage
from agent.errors import AgentError, Refused, Temporary
from agent.holdings import Holdings
from agent.ports import Source
from images import collect, errors, sweep, unpack
from images.image import Image
from images.reference import names_registry
from images.store import ImageStore
from protos import running
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

T = TypeVar("T")


class StoredImages:
    """Images over an `ImageStore` and the control plane. `run` it in a task of its own: downloads live there, so
    that one which a task no longer waits for still serves the others.
    """

    def __init__(self, folder: Path, source: Source, outside: Outside | None = None) -> None:
        self.store = ImageStore(folder)
        self.holdings = Holdings()
        self._source = source
        self._outside = outside or Outside()
        self._downloads = Downloads(self.store, source, lambda digest: self.holdings.add([digest]))
        self._prepared: dict[str, PreparedImage] = {}
        self._chains: dict[str, Sequence[str]] = {}
        """The layers of each image that is needed, as they were when its documents could be read."""
        self._flights: dict[str, asyncio.Future[Any]] = {}
        self._fetching = 0
        self._pruning = asyncio.Lock()
        self._spared: frozenset[str] = frozenset()
        """What the removal that goes on leaves here."""
        self._used: dict[str, float] = {}
        """When each image was asked for last, on the event loop's clock."""
        self.fetched = asyncio.Event()
        """An image has come: there may be little room now."""
        self._group: asyncio.TaskGroup | None = None
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Own the downloads; ends only by being cancelled."""
        self.holdings.add(await asyncio.to_thread(self._held))
        async with contextlib.AsyncExitStack() as ends, asyncio.TaskGroup() as self._group:
            ends.push_async_callback(self._outside.close)
            self.started.set()
            await asyncio.Event().wait()

    async def prepare(
        self, reference: str, digest: str, policy: "pb.ImagePullPolicy.ValueType" = pb.IMAGE_PULL_POLICY_MISSING
    ) -> PreparedImage:
        """See `ports.Images`. What was prepared is remembered until it is removed."""
        found = digest or await self._once(f"name {reference} {policy}", lambda: self._resolve(reference, policy))
        await self._spare(found)
        prepared = self._prepared.get(found)
        if prepared is None:
            if policy == pb.IMAGE_PULL_POLICY_NEVER:
                await asyncio.to_thread(self._check_whole, reference, found)
            prepared = await self._once(f"image {found}", lambda: self._prepare(reference, found))
            self._prepared[found], self._used[found] = prepared, self._now()
        await asyncio.to_thread(self._touch, found)
        return prepared

    async def prune(self, needed: imageroom.Needed, policy: collect.Policy) -> None:
        """Remove images that the policy chooses and nobody needs; nothing while one is on its way."""
        async with self._pruning:
            if self._fetching:
                return
            self._used = {one: at for one, at in self._used.items() if at > self._now() - imageroom.SPARED_S}
            try:
                gone = await asyncio.to_thread(self._prune, needed, frozenset(self._used), policy)
            finally:
                self._spared = frozenset()
            if gone.blobs or gone.layers:
                log.info("images made room", blobs=gone.blobs, layers=gone.layers, size_bytes=gone.size_bytes)
            self._prepared = {digest: one for digest, one in self._prepared.items() if self.store.has(digest)}
            self.holdings.replace(await asyncio.to_thread(self._held))

    async def _spare(self, digest: str) -> None:
        """Note that an image is used. A removal that goes on ends first, unless it spares this one anyway: it may wait
        for the store, and take as long as large folders do.
        """
        if digest in self._spared:
            self._used[digest] = self._now()
            return
        async with self._pruning:
            self._used[digest] = self._now()

    def _prune(self, needed: imageroom.Needed, used: frozenset[str], policy: collect.Policy) -> sweep.Pruned:
        """Blocks."""
        named = {digest for text in needed.references if (digest := self._digest_here(text))}
        kept = needed.digests | named | used
        self._spared = kept
        self._chains = {digest: self._chains.get(digest) or self._chains_of(digest) for digest in kept}
        # By their own names as well: a document that the disk damages must not take the files of what runs.
        return self.store.prune(keep=kept, keep_layers=itertools.chain(*self._chains.values()), forget=policy)

    def _chains_of(self, digest: str) -> Sequence[str]:
        """The chain ids of an image's layers; nothing as long as it is not here. Blocks."""
        try:
            return self.store.resolve(digest).chain_ids
        except errors.DigestMismatch:
            raise  # it was here a moment ago: nothing goes until somebody has looked again
        except (errors.NotFound, errors.InvalidReference, errors.InvalidImage):
            return ()

    def _digest_here(self, text: str) -> str:
        """What a name means on this node; empty when it means nothing. Blocks."""
        try:
            return self.store.resolve(text).digest
        except errors.ImageError:
            return ""

    def _touch(self, digest: str) -> None:
        """Blocks. Whatever may keep a file from being touched keeps no task from starting."""
        with contextlib.suppress(errors.ImageError, OSError):
            self.store.touch(digest)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _once(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of work that is done once for everybody who waits for it at the same time."""
        await self.started.wait()  # tasks that are restored ask while the store is still being looked at
        assert self._group is not None, "started"
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
        except asyncio.CancelledError as error:
            if _is_ending():
                raise
            # Something below has ended by itself; a flight that is cancelled would end all who wait for it.
            log.warning("an image was given up in the middle of it", what=key, why=str(error) or "cancelled")
            flight.set_exception(Temporary(f"{key}: it was broken off; it is tried again", reason="ImageNotReady"))
        except Exception:  # one image's trouble must not end the others
            log.exception("an image failed in an unexpected way", what=key)
            flight.set_exception(Temporary(f"the agent failed at {key}: see its log", reason="ImageNotReady"))
        finally:
            del self._flights[key]
            flight.cancel()
            if not flight.cancelled():
                flight.exception()  # when nobody waits any more, nobody has to hear of it

    async def _resolve(self, reference: str, policy: "pb.ImagePullPolicy.ValueType") -> str:
        """The digest that a name stands for, here or in the cluster, as the policy says."""
        if policy == pb.IMAGE_PULL_POLICY_ALWAYS:
            return await self._ask(reference)
        image = await self._stored(reference)
        if image is not None:
            return image.digest
        if policy == pb.IMAGE_PULL_POLICY_NEVER:
            raise _never(reference)
        return await self._ask(reference)

    async def _ask(self, reference: str) -> str:
        """What the name means now: in the cluster, else in the registry that it says."""
        try:
            return await self._source.resolve(reference)
        except (Refused, Temporary):
            if not names_registry(reference):
                raise
            return await self._outside.resolve(reference)

    def _check_whole(self, reference: str, digest: str) -> None:
        """Blocks. Raises Refused when something would have to be fetched."""
        try:
            if self.store.has(digest) and not self.store.missing(digest):
                return
        except errors.ImageError as error:  # what is here was damaged on the disk
            log.warning("an image that is never fetched is damaged", reference=reference, why=str(error))
        raise _never(reference)

    def _held(self) -> set[str]:
        """The blobs of all images that are here. Blocks."""
        images = self.store.list()
        parts = {part for one in images for part in (one.digest, one.config_digest, *(x.digest for x in one.layers))}
        # What a registry calls by the digest of an index is held by that, too.
        return {digest for digest in (*parts, *self.store.names().values()) if self.store.has(digest)}

    async def _prepare(self, reference: str, digest: str) -> PreparedImage:
        async with self._pruning:
            self._fetching += 1
        try:
            return await self._prepare_whole(reference, digest)
        finally:
            self._fetching -= 1
            self.fetched.set()

    async def _prepare_whole(self, reference: str, digest: str) -> PreparedImage:
        try:
            image = await self._get(reference, digest)
            folders = await asyncio.to_thread(unpack.unpack, self.store, image)
            self._chains[digest] = image.chain_ids
        except errors.ImageError as error:
            raise _told(error) from error
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

    async def _get(self, reference: str, digest: str) -> Image:
        """Have the whole image here: from the cluster, else from the registry that its name says."""
        try:
            return await self._fetch(reference, digest)
        except (Refused, Temporary) as error:
            if not names_registry(reference):
                raise
            log.info(
                "the cluster does not give an image; its registry is asked", reference=reference, why=error.message
            )
        image = await self._outside.pull(self.store, reference, digest)
        self.holdings.add([digest, image.digest, image.config_digest, *(layer.digest for layer in image.layers)])
        return image

    async def _fetch(self, reference: str, digest: str) -> Image:
        """Have the whole image in the store: manifest, then configuration and layers, a few at a time."""
        try:
            if not self.store.has(digest):
                await self._downloads.fetch(digest, None)
            while missing := await asyncio.to_thread(self.store.missing, digest):
                async with asyncio.TaskGroup() as group:
                    for descriptor in missing:
                        group.create_task(self._downloads.fetch(descriptor.digest, descriptor.size_bytes))
        except ExceptionGroup as failures:
            raise running.leaf(failures) from failures
        # Names keep it from being pruned, and let the node start it without a control plane.
        return await asyncio.to_thread(imagenames.give, self.store, reference, digest)

    async def _stored(self, reference: str) -> Image | None:
        try:
            return await asyncio.to_thread(self.store.resolve, reference)
        except errors.NotFound:
            return None
        except errors.ImageError as error:
            raise _told(error) from error


def _told(error: errors.ImageError) -> AgentError:
    if isinstance(error, errors.Busy | errors.StorageFailed):
        return Temporary(str(error), reason="ImageNotReady")
    if isinstance(error, errors.DigestMismatch):
        # On the way or on the disk; the next attempt fetches what is damaged again.
        return Temporary(str(error), reason="ImageDamaged")
    return Refused(str(error), reason="ImageInvalid")


def _never(reference: str) -> Refused:
    return Refused(
        f"image {reference} is not on this node, and `imagePullPolicy: never` keeps it from being fetched; load it "
        "there, or leave the policy out",
        reason="ImageMissing",
    )


def _is_ending() -> bool:
    """Whether somebody has cancelled this very task."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
