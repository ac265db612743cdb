"""Which node has which blob, and who gives to whom now. The leader's memory: nodes tell it again to a new one.

What a node was given lasts until it says that it has the blob, asks again, or is gone; and no longer than `LONGEST_S`,
so that a node which never says anything keeps nobody waiting for ever.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.core import blob_sources
from protos.orch.v1 import dispatcher_pb2 as wire

LONGEST_S = 60.0
PATIENCE_S = 3.0
"""How long a question is kept when nobody is free; its caller then asks again."""
MAX_BLOBS = 100_000
"""Blobs of one node that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node serves its blobs. An empty address: it serves none."""

    address: str
    zone: str = ""


class BlobBook:
    """`place_of` knows the nodes that are connected."""

    def __init__(self, place_of: Callable[[str], Place | None]) -> None:
        self._place_of = place_of
        self._held: dict[str, set[str]] = {}
        self._holders: dict[str, set[str]] = {}
        self._given: dict[tuple[str, str], tuple[str, float]] = {}
        """By digest and the node that fetches it: the address that it was given (empty: here), and until when."""
        self._changed = asyncio.Event()

    def note(self, node_id: str, told: wire.BlobsHeld) -> None:
        """What a node says that it serves."""
        held = self._held.setdefault(node_id, set())
        for digest in held & set(told.removed):
            held.discard(digest)
            self._leave(digest, node_id)
        for digest in told.added[: MAX_BLOBS - len(held)]:
            held.add(digest)
            self._holders.setdefault(digest, set()).add(node_id)
            self._given.pop((digest, node_id), None)
        self._wake()

    def forget(self, node_id: str) -> None:
        """The node's session is over: nobody is sent there."""
        for digest in self._held.pop(node_id, ()):
            self._leave(digest, node_id)
        for key in [key for key in self._given if key[1] == node_id]:
            del self._given[key]
        self._wake()

    def addresses(self, digest: str) -> Sequence[str]:
        """Every node that serves the blob."""
        places = map(self._place_of, sorted(self._holders.get(digest, ())))
        return [place.address for place in places if place is not None and place.address]

    async def find(self, request: wire.FindBlobRequest, *, here: Callable[[], bool]) -> wire.FindBlobResponse:
        """Who gives the blob to a node; empty when nobody is free for `PATIENCE_S`. `here`: this instance has it."""
        self._given.pop((request.digest, request.node_id), None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while (answer := self._choose(request, here=here())).is_empty:
                    await self._changed.wait()
                self._give(request, answer)
                return wire.FindBlobResponse(addresses=answer.addresses, here=answer.here)
        return wire.FindBlobResponse()

    def _choose(self, request: wire.FindBlobRequest, *, here: bool) -> blob_sources.Answer:
        now = asyncio.get_running_loop().time()
        busy: dict[str, int] = {}
        given_here = 0
        for (digest, _), (address, until) in self._given.items():
            if until > now:
                busy[address] = busy.get(address, 0) + 1
                given_here += not address and digest == request.digest
        asker = self._place_of(request.node_id)
        return blob_sources.choose(
            (
                blob_sources.Giver(address=place.address, zone=place.zone, busy=busy.get(place.address, 0))
                for holder in self._holders.get(request.digest, ())
                if holder != request.node_id and (place := self._place_of(holder)) is not None and place.address
            ),
            zone=asker.zone if asker is not None else "",
            failed=request.failed,
            here=here,
            given_here=given_here,
        )

    def _give(self, request: wire.FindBlobRequest, answer: blob_sources.Answer) -> None:
        until = asyncio.get_running_loop().time() + LONGEST_S
        self._given[request.digest, request.node_id] = (answer.addresses[0] if answer.addresses else "", until)

    def _leave(self, digest: str, node_id: str) -> None:
        holders = self._holders.get(digest, set())
        holders.discard(node_id)
        if not holders:
            self._holders.pop(digest, None)

    def _wake(self) -> None:
        """Whoever waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()
