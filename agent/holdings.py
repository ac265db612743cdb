"""Which blobs this node has and gives to others: what it serves, and what it tells the leader."""

import asyncio
from collections.abc import Iterable

from protos.orch.v1 import dispatcher_pb2 as dpb


class Holdings:
    """Digests of manifests, configurations and layers, and nothing else that may lie in the store."""

    def __init__(self) -> None:
        self._held: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    def __contains__(self, digest: object) -> bool:
        return digest in self._held

    @property
    def held(self) -> frozenset[str]:
        """All of them."""
        return self._held

    def add(self, digests: Iterable[str]) -> None:
        """These are here now, too."""
        self.replace(self._held | set(digests))

    def replace(self, digests: Iterable[str]) -> None:
        """These are here now, and no others."""
        self._held = frozenset(digests)
        self._changed.set()

    async def news(self, told: frozenset[str]) -> tuple[dpb.BlobsHeld, frozenset[str]]:
        """What to tell whoever knows `told`, and what it knows then. Waits until there is any; one asks at a time."""
        while told == self._held:
            self._changed.clear()
            await self._changed.wait()
        held = self._held
        return dpb.BlobsHeld(added=sorted(held - told), removed=sorted(told - held)), held
