"""Images that come from the registry which their name says, for what the cluster itself does not have."""

import asyncio
from pathlib import Path

from agent.errors import AgentError, Refused, Temporary
from images import errors, manifest
from images.image import Image
from images.registry import config, credentials, pull, registries
from images.registry import errors as registry_errors
from images.store import ImageStore

_PASSING = (registry_errors.Unreachable, registry_errors.Unavailable, errors.Busy, errors.StorageFailed)
_FOR_PEOPLE = (registry_errors.Unauthorized, registry_errors.BadConfiguration)
"""What somebody can put right on the node without touching the service."""


class Outside:
    """`settings`: registries, mirrors and CAs; `kept`: credentials as `orchctl image login` keeps them. None: the usual
    files. Both are read anew for each image, since people repair them.
    """

    def __init__(self, settings: Path | None = None, kept: Path | None = None) -> None:
        self._settings = settings
        self._kept = kept

    async def resolve(self, reference: str) -> str:
        """The digest that a name stands for now. Raises Refused or Temporary."""
        try:
            async with self._open() as shared:
                return await pull.resolve(reference, registries=shared)
        except errors.ImageError as error:
            raise _told(reference, error) from error

    async def pull(self, store: ImageStore, reference: str, digest: str) -> Image:
        """Have exactly that image in the store, under the name if it says a tag. Raises Refused or Temporary."""
        name = reference if "@" in reference else f"{reference}@{digest}"
        try:
            async with self._open() as shared:
                await pull.pull(store, name, registries=shared)
            return await asyncio.to_thread(store.resolve, digest, platform=manifest.host_platform())
        except errors.ImageError as error:
            raise _told(reference, error) from error

    def _open(self) -> registries.Registries:
        return registries.Registries(config.load(self._settings), kept=credentials.DockerConfig(self._kept))


def _told(reference: str, error: errors.ImageError) -> AgentError:
    text = f"image {reference}: {error}"
    if isinstance(error, _PASSING):
        return Temporary(text, reason="RegistryUnavailable")
    if isinstance(error, _FOR_PEOPLE):
        return Temporary(text, reason="RegistryRefuses")
    return Refused(text, reason="ImageMissing" if isinstance(error, errors.NotFound) else "ImageInvalid")
