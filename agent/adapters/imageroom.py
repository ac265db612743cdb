"""Makes room on the node's disk: looks after every download and a few times an hour, and removes what may go.

The rule: nothing is removed while an image is on its way, since its parts have no name yet.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

import structlog

from agent.adapters.images import StoredImages
from agent.core import imageroom
from images import collect, errors

log = structlog.get_logger()

INTERVAL_S = 600.0


class ImageRoom:
    """`run` it in a task of its own. `needed` says what tasks have or may start."""

    def __init__(self, images: StoredImages, needed: Callable[[], imageroom.Needed], limits: imageroom.Limits) -> None:
        self._images = images
        self._needed = needed
        self._limits = limits

    async def run(self) -> None:
        """Ends only by being cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._images.fetched.wait(), INTERVAL_S)
            self._images.fetched.clear()
            await self.look()

    async def look(self) -> None:
        """Remove what may go. What cannot be removed is told, and tried again at the next look."""
        try:
            await self._images.prune(self._needed(), self._policy())
        except errors.ImageError as error:
            log.warning("no room was made for images", why=str(error))

    def _policy(self) -> collect.Policy:
        found = os.statvfs(self._images.store.root)
        disk = collect.Disk(
            total_bytes=found.f_blocks * found.f_frsize,
            free_bytes=found.f_bavail * found.f_frsize,
        )
        return imageroom.policy(self._limits, disk, time.time())
