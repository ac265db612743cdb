"""Images that come from the registry which their name says, for what the cluster itself does not have.

Two rules. What speaks to registries is imported when the first one is asked: most nodes never do, and it is a third of
what an agent would take. And all images share connections, tokens and the bounds on transfers, for as long as the files
that say how registries are spoken to are what they were, and nothing fails that a person may repair elsewhere.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import metrics
from agent.errors import AgentError, Refused, Temporary
from images import errors, manifest
from images.image import Image
from images.store import ImageStore

if TYPE_CHECKING:
    from images.registry import config, registries

Stamps = dict[Path, tuple[int, int, int] | None]


@dataclass(slots=True, kw_only=True)
class _Door:
    """Registries as some files describe them; closed when it is no longer the one to use and the last user has left."""

    shared: "registries.Registries"
    stamps: Stamps
    users: int = 0
    closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)


class Outside:
    """`settings`: registries, mirrors and CAs; `kept`: credentials as `orchctl image login` keeps them. None: the usual
    files. What is changed in them counts from the next image on. `close` it in the end.
    """

    def __init__(self, settings: Path | None = None, kept: Path | None = None) -> None:
        self._settings = settings
        self._kept = kept
        self._door: _Door | None = None
        self._transfers: registries.Transfers | None = None
        """Bounds outlive a door: what is on its way through the one before counts too."""
        self._opening = asyncio.Lock()

    async def resolve(self, reference: str) -> str:
        """The digest that a name stands for now. Raises Refused or Temporary."""
        from images.registry import pull

        try:
            async with self._open() as shared:
                return await pull.resolve(reference, registries=shared)
        except errors.ImageError as error:
            raise _told(reference, error) from error

    async def pull(self, store: ImageStore, reference: str, digest: str) -> Image:
        """Have exactly that image in the store, under the name if it says a tag. Raises Refused or Temporary."""
        from images.registry import pull

        name = reference if "@" in reference else f"{reference}@{digest}"
        try:
            async with self._open() as shared:
                await pull.pull(store, name, registries=shared)
            pulled = await asyncio.to_thread(store.resolve, digest, platform=manifest.host_platform())
        except errors.ImageError as error:
            metrics.PULLS.labels("failed").inc()
            raise _told(reference, error) from error

        metrics.PULLS.labels("pulled").inc()
        return pulled

    async def close(self) -> None:
        """Nobody asks any more."""
        door, self._door = self._door, None
        await _close_unused(door)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator["registries.Registries"]:
        from images.registry import errors as of_registries

        door = await self._current()
        door.users += 1
        try:
            yield door.shared
        except (of_registries.NotFound, of_registries.Unavailable):
            raise  # nothing on this node could make a difference
        except of_registries.RegistryError:
            # A certificate, a keychain or the registry itself may be repaired: the next one starts without memories.
            self._door = None if self._door is door else self._door
            raise
        finally:
            door.users -= 1
            if door is not self._door:
                await _close_unused(door)

    async def _current(self) -> _Door:
        """The door for the files as they are now. Raises `BadConfiguration` with the file."""
        from images.registry import config, credentials, registries

        async with self._opening:
            if self._door is None or self._door.stamps != _stamps(self._door.stamps):
                before, self._door = self._door, None
                await _close_unused(before)
                settings, kept = config.load(self._settings), credentials.DockerConfig(self._kept)
                files = (self._settings or config.DEFAULT_PATH, kept.path, *_files(settings))
                shared = registries.Registries(settings, kept=kept, transfers=self._transfers)
                door = _Door(shared=shared, stamps=_stamps(files))
                await door.closing.enter_async_context(shared)
                self._door, self._transfers = door, shared.transfers
            return self._door


async def _close_unused(door: _Door | None) -> None:
    if door is not None and not door.users:
        await door.closing.aclose()


def _files(settings: "config.Config") -> Iterable[Path]:
    for one in settings.registries.values():
        yield from (path for path in (one.ca, one.client_certificate, one.client_key) if path)


def _stamps(files: Iterable[Path]) -> Stamps:
    """By which one sees that a file has changed; None for one that is not there."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _told(reference: str, error: errors.ImageError) -> AgentError:
    from images.registry import errors as of_registries

    text = f"image {reference}: {error}"
    if isinstance(error, of_registries.Unreachable | of_registries.Unavailable | errors.Busy | errors.StorageFailed):
        return Temporary(text, reason="RegistryUnavailable")
    if isinstance(error, errors.DigestMismatch):
        # On the way or on the disk; the next attempt fetches what is damaged again.
        return Temporary(text, reason="ImageDamaged")
    if isinstance(error, of_registries.Unauthorized | of_registries.BadConfiguration):
        # Somebody can put it right on the node, without touching the service.
        return Temporary(text, reason="RegistryRefuses")
    return Refused(text, reason="ImageMissing" if isinstance(error, errors.NotFound) else "ImageInvalid")
