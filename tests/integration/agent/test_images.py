"""Images on their way to a node: cut downloads, damaged bytes, many who wait, and no control plane."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.adapters.images import StoredImages
from agent.errors import Refused, Temporary
from images.errors import NotFound
from images.store import ImageStore
from tests.support.aio import bounded, until

pytestmark = pytest.mark.root


class Cluster:
    """A control plane's images, with the mishaps that a test wants."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.gone = False
        self.cut_after_bytes = 0  # 0: never
        self.damage = False
        self.fetched: list[tuple[str, int]] = []
        self.resolved = 0

    async def resolve(self, reference: str) -> str:
        self.resolved += 1
        if self.gone:
            raise Temporary("the control plane is gone")
        try:
            return self._store.resolve(reference).digest
        except NotFound as error:
            raise Refused(str(error), reason="ImageMissing") from error

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        if self.gone:
            raise Temporary("the control plane is gone")
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
async def images(folder: Path, cluster: Cluster) -> AsyncIterator[StoredImages]:
    """The node's images, alive inside the block."""
    made = StoredImages(folder, cluster)
    async with asyncio.TaskGroup() as group:
        life = group.create_task(made.run())
        await made.started.wait()
        yield made
        life.cancel()


@bounded(30)
async def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path, store: ImageStore) -> None:
    """No byte is fetched twice."""
    cluster = Cluster(store)
    cluster.cut_after_bytes = 900_000
    async with images(tmp_path, cluster) as here:
        prepared = await here.prepare("hello:1", "")
    layer = store.resolve("hello:1").layers[0].digest
    offsets = [offset for digest, offset in cluster.fetched if digest == layer]
    assert offsets == [0, 1_000_000, 2_000_000]
    assert is_executable(Path(prepared.layers[0], "bin/busybox"))


def is_executable(path: Path) -> bool:
    return path.stat().st_mode & 0o777 == 0o755


@bounded(30)
async def test_many_wait_for_one_download(tmp_path: Path, store: ImageStore) -> None:
    """Each blob is fetched once, and one that stops waiting does not stop it for the others."""
    cluster = Cluster(store)
    async with images(tmp_path, cluster) as here, asyncio.TaskGroup() as group:
        waiting = [group.create_task(here.prepare("hello:1", "")) for _ in range(20)]
        await until(lambda: bool(cluster.fetched), what="the download begins")
        waiting[0].cancel()
        found = {(await each).digest for each in waiting[1:]}
        assert found == {store.resolve("hello:1").digest}
        assert len(cluster.fetched) == len(set(cluster.fetched)) == 3
        assert cluster.resolved == 1


@bounded(30)
async def test_damaged_bytes_are_never_used(tmp_path: Path, store: ImageStore) -> None:
    """They are fetched again later; nothing of them stays."""
    cluster = Cluster(store)
    cluster.damage = True
    async with images(tmp_path, cluster) as here:
        with pytest.raises(Temporary, match="digest"):
            await here.prepare("hello:1", "")
        assert list((tmp_path / "blobs/sha256").iterdir()) == []
        cluster.damage = False
        await here.prepare("hello:1", "")


@bounded(30)
async def test_without_a_control_plane_what_is_here_is_used(tmp_path: Path, store: ImageStore) -> None:
    """By name or digest, also by another agent on the same disk; what is not here is waited for."""
    cluster = Cluster(store)
    async with images(tmp_path, cluster) as here:
        digest = (await here.prepare("hello:1", "")).digest
    cluster.gone = True
    async with images(tmp_path, cluster) as here:
        assert (await here.prepare("hello:1", "")).digest == digest
        assert (await here.prepare("hello:1", digest)).cmd == ("httpd", "-f", "-p", "80", "-h", "/www")
        with pytest.raises(Temporary, match="gone"):
            await here.prepare("other:1", "")


@bounded(30)
async def test_an_unknown_image_is_refused(tmp_path: Path, store: ImageStore) -> None:
    """For good: waiting would not help."""
    async with images(tmp_path, Cluster(store)) as here:
        with pytest.raises(Refused):
            await here.prepare("other:1", "")
