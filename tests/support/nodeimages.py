"""A node's images over a control plane with the mishaps that a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agent.adapters.images import StoredImages
from agent.adapters.registries import Outside
from agent.errors import Refused, Temporary
from agent.rpc import Server
from images.errors import NotFound
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb


class Cluster:
    """A control plane's images, with the mishaps that a test wants."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.gone = False
        self.cut_after_bytes = 0  # 0: never
        self.damage = False
        self.fetched: list[tuple[str, int]] = []
        self.resolved = 0
        self.givers: list[str] = []
        """Addresses of nodes that have it."""

    async def resolve(self, reference: str) -> str:
        self.resolved += 1
        if self.gone:
            raise Temporary("the control plane is gone")
        try:
            return self._store.resolve(reference).digest
        except NotFound as error:
            raise Refused(str(error), reason="ImageMissing") from error

    async def find(self, digest: str, failed: Sequence[str]) -> dpb.FindBlobResponse:
        del digest
        if self.gone:
            raise Temporary("the control plane is gone")
        addresses = [address for address in self.givers if address not in failed]
        return dpb.FindBlobResponse(addresses=addresses, here=not addresses)

    async def fetch(self, digest: str, offset: int, address: str = "") -> AsyncIterator[bytes]:
        if self.gone:
            raise Temporary("the control plane is gone")
        if address:
            async for chunk in Server("me").fetch(digest, offset, address):
                yield chunk
            return
        if not self._store.has(digest):
            raise Refused(f"image {digest} is not in the cluster", reason="ImageMissing")
        self.fetched.append((digest, offset))
        with self._store.open(digest) as blob:
            blob.seek(offset)
            sent = 0
            while chunk := blob.read(200_000):
                await asyncio.sleep(0)
                yield b"x" * len(chunk) if self.damage else chunk
                sent += len(chunk)
                if 0 < self.cut_after_bytes <= sent:
                    raise Temporary("the connection was cut")


@contextlib.asynccontextmanager
async def images(folder: Path, cluster: Cluster, outside: Outside | None = None) -> AsyncIterator[StoredImages]:
    """The node's images, alive inside the block."""
    made = StoredImages(folder, cluster, outside)
    async with asyncio.TaskGroup() as group:
        life = group.create_task(made.run())
        await made.started.wait()
        yield made
        life.cancel()


def is_executable(path: Path) -> bool:
    return path.stat().st_mode & 0o777 == 0o755


def layer_of(store: ImageStore) -> str:
    return store.resolve("hello:1").layers[0].digest
