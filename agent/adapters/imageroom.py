"""Makes room on the node's disk: after a download when the disk is full or there are too many names, and once an hour
for what has grown old.

The rule: nothing is removed while an image is on its way, since its parts have no name yet.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from agent.adapters.images import StoredImages
from agent.core import imageroom
from images import collect, errors

log = structlog.get_logger()

INTERVAL_S = 3600.0


class ImageRoom:
    """`run` it in a task of its own. `needed` says what tasks have or may start, once `restored` is set: before that,
    nobody knows what runs, and nothing is removed.
    """

    def __init__(
        self,
        images: StoredImages,
        needed: Callable[[], imageroom.Needed],
        limits: imageroom.Limits,
        restored: asyncio.Event,
    ) -> None:
        self._images = images
        self._needed = needed
        self._limits = limits
        self._restored = restored

    async def run(self) -> None:
        """Ends only by being cancelled."""
        await self._restored.wait()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._until_full()
            await self.look()

    async def look(self) -> None:
        """Remove what may go. What cannot be removed is told, and tried again at the next look."""
        try:
            disk = self._images.store.disk()
            await self._images.prune(self._needed(), imageroom.policy(self._limits, disk, time.time()))
        except (errors.ImageError, OSError) as error:
            log.warning("no room was made for images", why=str(error))

    async def _until_full(self) -> None:
        """Wait for a download that has filled the disk, or the list of names."""
        while True:
            await self._images.fetched.wait()
            self._images.fetched.clear()
            if await asyncio.to_thread(self._is_full):
                return

    def _is_full(self) -> bool:
        """Blocks. What cannot be looked at is told by `look`."""
        store = self._images.store
        try:
            is_full = collect.excess_bytes(store.disk(), self._limits.marks) > 0
            return is_full or len(store.names()) >= imageroom.MANY_NAMES
        except (errors.ImageError, OSError):
            return True
