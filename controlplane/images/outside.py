"""What images of registries mean, asked when a service that names them is applied.

Two rules. A registry that does not answer keeps nobody from applying; the nodes then ask it when they start. And what
speaks to registries is imported when the first one is asked: many clusters never do.
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from images import errors

if TYPE_CHECKING:
    from images.registry import registries

PATIENCE_S = 5.0
"""How long an apply waits for all registries together."""
AT_ONCE = 8

_log = structlog.get_logger()


class Outside:
    """`settings`: the file with registries, mirrors and CAs; None: the usual one, if it is there."""

    def __init__(self, settings: Path | None = None) -> None:
        self._settings = settings

    async def resolve(self, images: Collection[str]) -> Mapping[str, str]:
        """The digests of those images whose registries tell in time."""
        found: dict[str, str] = {}
        if not images:
            return found
        from images.registry import config, registries

        try:
            async with registries.Registries(config.load(self._settings)) as shared:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
                        slots = asyncio.Semaphore(AT_ONCE)
                        for image in sorted(images):
                            group.create_task(_resolve(image, shared, slots, found))
        except errors.ImageError as error:
            _log.warning("registries are not asked what images mean", why=str(error))
        return found


async def _resolve(
    image: str, shared: "registries.Registries", slots: asyncio.Semaphore, found: dict[str, str]
) -> None:
    from images.registry import pull

    try:
        async with slots:
            found[image] = await pull.resolve(image, registries=shared)
    except errors.ImageError as error:
        _log.info("what an image means is left to the nodes", image=image, why=str(error))
