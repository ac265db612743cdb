"""Keeps every instance's disk as the store says: what it names is fetched, what nothing names is removed.

An image comes in through the leader, and the other instances fetch it as soon as the store has its name, so that any of
them can lead. The rule: events only wake the loop, which looks at everything that is wanted; what could not be got is
tried again later and later, and what nobody has is told once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from controlplane import rpc
from controlplane.core import kept_images, request_errors
from controlplane.images.cluster import ClusterImages
from controlplane.images.sources import Dial, Fetcher, Source
from controlplane.store import errors
from controlplane.store.cache import Cache
from controlplane.store.snapshots import Change
from images import errors as image_errors
from trust.core.identity import Role

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 120.0
TIDY_AFTER_S = 5.0
"""What a change has left over is removed this long after it, together with what others leave."""
HOLDS_S = 300.0
"""How often is looked for blobs of pushes that were never finished, while there may be any."""
IDLE_S = 3600.0
"""How often is looked while nothing is known to be left over: for uploads that nobody goes on with."""
ELSEWHERE_S = 600.0
"""How often the other instances are asked for an image of a registry that none of them had."""
KINDS = ("image", "revision", "service")

log = structlog.get_logger()


class Keeper:
    """`run` it in a task. `instances`: the addresses of the other instances; `nodes`: those of nodes that have a
    blob; `dial` makes the way to either.
    """

    def __init__(
        self,
        images: ClusterImages,
        cache: Cache,
        *,
        instances: Callable[[], Awaitable[Mapping[str, str]]],
        nodes: Callable[[str], Sequence[str]],
        dial: Dial = rpc.channel,
    ) -> None:
        self._images = images
        self._cache = cache
        self._instances = instances
        self._nodes = nodes
        self._fetcher = Fetcher(images.store, images.threads, self._sources, dial)
        self._from_instances = Fetcher(images.store, images.threads, self._other_instances, dial)
        self._asked: dict[str, float] = {}
        """When the other instances were asked for an image that a registry may have."""
        self._told: set[str] = set()
        """What nobody has, and was said so of."""

    async def run(self) -> None:
        """Ends only by being cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_whole())
            left = asyncio.Event()
            group.create_task(self._keep_tidy(left))
            with self._cache.subscribe(KINDS) as subscription:
                while True:
                    taken = await subscription.take()
                    if taken.resync or any(_brings(change) for change in taken.changes):
                        self._images.lacking.set()
                    if taken.resync or any(_leaves(change) for change in taken.changes):
                        left.set()

    async def _keep_whole(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            self._images.lacking.clear()
            lacking = await self._fetch_all()
            self._tell(lacking)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S) if lacking else FIRST_WAIT_S
            if lacking:
                await asyncio.sleep(FIRST_WAIT_S)  # nodes that ask again and again wake it, too
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._images.lacking.wait(), wait_s if lacking else None)

    async def _fetch_all(self) -> frozenset[str]:
        """What is wanted and could not be got."""
        snapshot = self._cache.snapshot()
        whole = kept_images.whole(snapshot)
        lacking = frozenset([digest for digest in sorted(whole) if not await self._fetch(digest, self._fetcher)])
        await self._fetch_pushed(kept_images.wanted(snapshot) - whole)
        return lacking

    async def _fetch_pushed(self, others: frozenset[str]) -> None:
        """Images whose names say a registry come from there, unless somebody has pushed them here, under that name:
        then an instance has them, and perhaps nobody else.
        """
        now = asyncio.get_running_loop().time()
        self._asked = {one: at for one, at in self._asked.items() if one in others and at + ELSEWHERE_S > now}
        for digest in sorted(others - self._asked.keys()):
            self._asked[digest] = now
            await self._fetch(digest, self._from_instances)

    async def _fetch(self, digest: str, fetcher: Fetcher) -> bool:
        try:
            if await self._images.threads.run(self._images.is_whole, digest):
                return True
            async with self._images.changing():
                return await fetcher.fetch(digest, room=self._images.check_room)
        except (image_errors.ImageError, request_errors.Overloaded, errors.Temporary) as error:
            log.warning("an image of the cluster is not kept here", digest=digest, why=str(error))
            return False
        except Exception:  # one image's trouble must not end the others, and the instance with them
            log.exception("an image of the cluster is not kept here", digest=digest)
            return False

    def _tell(self, lacking: frozenset[str]) -> None:
        for digest in sorted(lacking - self._told):
            log.warning("an image of the cluster is not here, and nobody that can be reached has it", digest=digest)
        self._told = set(lacking)

    async def _sources(self, digest: str) -> Sequence[Source]:
        """Other instances first: they are few, and have nothing else to do."""
        nodes = [Source(address=one, role=Role.NODE) for one in self._nodes(digest)]
        return [*await self._other_instances(digest), *nodes]

    async def _other_instances(self, _digest: str) -> Sequence[Source]:
        return [Source(address=one, role=Role.CONTROLPLANE) for one in (await self._instances()).values()]

    async def _keep_tidy(self, left: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(left.wait(), HOLDS_S if self._images.is_untidy else IDLE_S)
            await asyncio.sleep(TIDY_AFTER_S)
            left.clear()
            try:
                await self._images.tidy()
            except Exception:  # a disk that cannot be tidied is no reason to end the instance
                log.exception("images that nobody needs stay on the disk")


def _brings(change: Change) -> bool:
    before, after = kept_images.digests(change)
    return not after <= before


def _leaves(change: Change) -> bool:
    before, after = kept_images.digests(change)
    return not before <= after
