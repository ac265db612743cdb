"""Images that come from the registry which their name says, for what the cluster itself does not have.

The rule: what speaks to registries is imported when the first one is asked. Most nodes never do, and it is a third of
what an agent would take.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from agent import metrics
from agent.errors import AgentError, Refused, Temporary
from images import errors, manifest
from images.image import Image
from images.store import ImageStore

if TYPE_CHECKING:
    from images.registry import doors, registries


class Outside:
    """`settings`: registries, mirrors and CAs; `kept`: credentials as `orchctl image login` keeps them. None: the usual
    files. What is changed in them counts from the next image on. `close` it in the end.
    """

    def __init__(self, settings: Path | None = None, kept: Path | None = None) -> None:
        self._files = settings, kept
        self._door: doors.Door | None = None

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
        if self._door is not None:
            await self._door.close()

    def _open(self) -> "contextlib.AbstractAsyncContextManager[registries.Registries]":
        from images.registry import doors

        self._door = self._door or doors.Door(*self._files)
        return self._door.opened()


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
