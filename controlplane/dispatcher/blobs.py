"""Which node has which blob, and who gives to whom now. The leader's memory: nodes tell it again to a new one.

What a node was given lasts until it says that it has the blob, asks again, or is gone; and no longer than a slow
transfer takes, so that a node which never says anything keeps nobody waiting for ever.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from controlplane.core import blob_sources, locality
from images.digest import is_digest
from protos.orch.v1 import dispatcher_pb2 as wire

LONGEST_S = 60.0
"""What was given counts for so long, and for as much longer as the blob takes at `SLOW_BYTES_PER_S`."""
SLOW_BYTES_PER_S = 2 * 1024 * 1024
PATIENCE_S = 3.0
"""How long a question is kept when nobody is free; its caller then asks again."""
MAX_BLOBS = 100_000
"""Blobs of one node that are remembered."""
LOOKED_AT = 256
"""Nodes that have a blob which one question looks at, those that got it last first: they are the least busy."""
WOKEN = 8
"""Questions about a blob that are looked at again when something changes: no more can be answered by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node serves its blobs. An empty address: it serves none."""

    address: str
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a node was given: an address, empty for this instance, and until when that counts."""

    address: str
    until: float


class BlobBook:
    """`place_of` knows the nodes that are connected."""

    def __init__(self, place_of: Callable[[str], Place | None]) -> None:
        self.holders = locality.Holders()
        """The same for the scheduler, which asks about all nodes at once."""
        self._place_of = place_of
        self._held: dict[str, set[str]] = {}
        self._holders: dict[str, dict[str, None]] = {}
        self._given: dict[tuple[str, str], _Given] = {}
        """By digest and the node that fetches it."""
        self._ends: list[tuple[float, tuple[str, str]]] = []
        """A heap: when each of them may have ended. What was released stays in it until then."""
        self._busy: Counter[str] = Counter()
        self._from_here: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def note(self, node_id: str, told: wire.BlobsHeld) -> None:
        """What has changed in what a node serves."""
        held = self._held.setdefault(node_id, set())
        for digest in held & set(told.removed):
            held.discard(digest)
            self._leave(digest, node_id)
        for digest in filter(is_digest, told.added[: MAX_BLOBS - len(held)]):
            held.add(digest)
            self._holders.setdefault(digest, {})[node_id] = None
            self.holders.add(digest, node_id)
            self._release((digest, node_id))
        self._wake()

    def forget(self, node_id: str) -> None:
        """The node's session is over: nobody is sent there."""
        for digest in self._held.pop(node_id, ()):
            self._leave(digest, node_id)
        self.holders.forget(node_id)
        for key in [key for key in self._given if key[1] == node_id]:
            self._release(key)
        self._wake()

    def addresses(self, digest: str) -> Sequence[str]:
        """Every node that serves the blob."""
        places = map(self._place_of, sorted(self._holders.get(digest, ())))
        return [place.address for place in places if place is not None and place.address]

    async def find(
        self, request: wire.FindBlobRequest, *, here: Callable[[], bool], size_bytes: int = 0
    ) -> wire.FindBlobResponse:
        """Who gives the blob to a node; empty when nobody is free for `PATIENCE_S`. `here`: this instance has it.
        `size_bytes`: the blob's, 0 when it is not known.
        """
        self._release((request.digest, request.node_id))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while (answer := self._choose(request, here=here())).is_empty:
                    await self._change(request.digest)
                self._give(request, answer, LONGEST_S + size_bytes / SLOW_BYTES_PER_S)
                return wire.FindBlobResponse(addresses=answer.addresses, here=answer.here)
        return wire.FindBlobResponse()

    def _choose(self, request: wire.FindBlobRequest, *, here: bool) -> blob_sources.Answer:
        self._expire()
        asker = self._place_of(request.node_id)
        return blob_sources.choose(
            itertools.islice(self._givers(request), LOOKED_AT),
            zone=asker.zone if asker is not None else "",
            failed=request.failed,
            here=here,
            given_here=self._from_here[request.digest],
        )

    def _givers(self, request: wire.FindBlobRequest) -> Iterator[blob_sources.Giver]:
        for holder in reversed(self._holders.get(request.digest, {})):
            place = self._place_of(holder) if holder != request.node_id else None
            if place is not None and place.address:
                yield blob_sources.Giver(address=place.address, zone=place.zone, busy=self._busy[place.address])

    def _give(self, request: wire.FindBlobRequest, answer: blob_sources.Answer, for_s: float) -> None:
        self._release((request.digest, request.node_id))  # two of its questions may have waited, and one counts
        address = answer.addresses[0] if answer.addresses else ""
        until = asyncio.get_running_loop().time() + for_s
        self._given[request.digest, request.node_id] = _Given(address=address, until=until)
        heapq.heappush(self._ends, (until, (request.digest, request.node_id)))
        if address:
            self._busy[address] += 1
        else:
            self._from_here[request.digest] += 1

    def _release(self, key: tuple[str, str]) -> None:
        """The node fetches it no longer."""
        given = self._given.pop(key, None)
        if given is not None:
            counter, counted = (self._busy, given.address) if given.address else (self._from_here, key[0])
            counter[counted] -= 1
            if not counter[counted]:
                del counter[counted]

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            given = self._given.get(key)
            if given is not None and given.until == until:
                self._release(key)

    def _leave(self, digest: str, node_id: str) -> None:
        self.holders.remove(digest, node_id)
        holders = self._holders.get(digest, {})
        holders.pop(node_id, None)
        if not holders:
            self._holders.pop(digest, None)

    async def _change(self, digest: str) -> None:
        """Wait, in turn, until something has changed that may answer a question about the blob."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(digest, deque())
        waiting.append(turn)
        try:
            await turn
        finally:
            with contextlib.suppress(ValueError):  # whoever woke it took it out
                waiting.remove(turn)
            if not waiting and self._waiting.get(digest) is waiting:
                del self._waiting[digest]

    def _wake(self) -> None:
        """Those who have waited longest look again."""
        for waiting in list(self._waiting.values()):
            for _ in range(min(WOKEN, len(waiting))):
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
