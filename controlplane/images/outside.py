"""What images of registries mean, asked when a service that names them is applied.

Two rules. A registry that does not answer keeps nobody from applying; the nodes then ask it when they start. And what
speaks to registries is imported when the first one is asked, since many clusters never do, and kept open from then on.
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from images import errors

if TYPE_CHECKING:
    from images.registry import doors

PATIENCE_S = 5.0
"""How long an apply waits for all registries together."""
AT_ONCE = 8

_log = structlog.get_logger()


class Outside:
    """`settings`: the file with registries, mirrors and CAs; `kept`: credentials for them. None: the usual files.
    `close` it in the end.
    """

    def __init__(self, settings: Path | None = None, kept: Path | None = None) -> None:
        self._files = settings, kept
        self._door: doors.Door | None = None

    async def resolve(self, images: Collection[str]) -> Mapping[str, str]:
        """The digests of those images whose registries tell in time."""
        found: dict[str, str] = {}
        if not images:
            return found
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
                slots = asyncio.Semaphore(AT_ONCE)
                for image in sorted(images):
                    group.create_task(self._resolve(image, slots, found))
        return found

    async def close(self) -> None:
        """Nobody applies any more."""
        if self._door is not None:
            await self._door.close()

    async def _resolve(self, image: str, slots: asyncio.Semaphore, found: dict[str, str]) -> None:
        from images.registry import doors, pull

        self._door = self._door or doors.Door(*self._files)
        try:
            async with slots, self._door.opened() as shared:
                found[image] = await pull.resolve(image, registries=shared)
        except errors.ImageError as error:
            _log.info("what an image means is left to the nodes", image=image, why=str(error))
