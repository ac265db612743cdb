"""Images on their way to a node: cut downloads, damaged bytes, many who wait, and no control plane."""

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from agent.adapters.blobserver import BlobServer, serving
from agent.adapters.imageroom import ImageRoom
from agent.adapters.images import StoredImages
from agent.adapters.registries import Outside
from agent.core import imageroom, sharing
from agent.errors import Refused, Temporary
from agent.holdings import Holdings
from agent.rpc import Server
from images import collect, layout, names
from images.errors import NotFound
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support import blobserving, etcd
from tests.support.aio import bounded, until, within

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


# From other nodes -----------------------------------------------------------------------------------------------------


def layer_of(store: ImageStore) -> str:
    return store.resolve("hello:1").layers[0].digest


@bounded(30)
async def test_a_layer_comes_from_a_node_that_has_it(tmp_path: Path, store: ImageStore) -> None:
    """The control plane gives the small parts only; and what has come is given on to the next."""
    cluster = Cluster(store)
    async with images(tmp_path / "first", cluster) as first:
        await first.prepare("hello:1", "")
        server = BlobServer(first.store, first.holdings, sharing.Limits())
        async with serving(server, "127.0.0.1", etcd.free_port()) as port, images(tmp_path / "next", cluster) as here:
            cluster.givers, cluster.fetched = [f"127.0.0.1:{port}"], []
            prepared = await here.prepare("hello:1", "")
            assert is_executable(Path(prepared.layers[0], "bin/busybox"))
            assert layer_of(store) not in {digest for digest, _ in cluster.fetched}
            assert server.served_bytes == store.size_bytes(layer_of(store))
            assert layer_of(store) in here.holdings


@bounded(30)
async def test_a_node_that_lies_is_left_out_and_its_bytes_are_thrown_away(tmp_path: Path, store: ImageStore) -> None:
    cluster = Cluster(store)
    async with blobserving.lying(store) as liar, images(tmp_path, cluster) as here:
        cluster.givers = [liar]
        prepared = await here.prepare("hello:1", "")
        assert is_executable(Path(prepared.layers[0], "bin/busybox"))
        assert (layer_of(store), 0) in cluster.fetched, "it began anew"


@bounded(30)
async def test_a_node_that_breaks_off_or_does_not_answer_costs_no_byte(tmp_path: Path, store: ImageStore) -> None:
    """The next place goes on where it ended."""
    cluster = Cluster(store)
    nobody = f"127.0.0.1:{etcd.free_port()}"
    async with blobserving.breaking(store, after_bytes=600_000) as dying, images(tmp_path, cluster) as here:
        cluster.givers = [nobody, dying]
        await here.prepare("hello:1", "")
        ((_, offset),) = [one for one in cluster.fetched if one[0] == layer_of(store)]
        assert offset >= 600_000


@bounded(30)
async def test_a_node_gives_images_only_and_to_so_many_at_a_time(store: ImageStore) -> None:
    secret = store.put_bytes(b"not of an image")
    held = Holdings()
    held.add([layer_of(store)])
    server = BlobServer(store, held, sharing.Limits(transfers=1, bytes_per_s=1024 * 1024))
    async with serving(server, "127.0.0.1", etcd.free_port()) as port:
        source, address = Server("me"), f"127.0.0.1:{port}"
        with pytest.raises(Temporary, match="does not have"):
            await anext(source.fetch(secret, 0, address))
        first = source.fetch(layer_of(store), 0, address)
        await anext(first)
        with pytest.raises(Temporary, match="busy"):
            await anext(source.fetch(layer_of(store), 0, address))
        await first.aclose()
        await until(lambda: not server.transfers, what="the first has ended")
        await anext(source.fetch(layer_of(store), 0, address))


# As the manifest says
# ---------------------------------------------------------------------------------------------------


@bounded(30)
async def test_what_is_here_starts_without_asking_anybody(tmp_path: Path, store: ImageStore) -> None:
    cluster = Cluster(store)
    async with images(tmp_path, cluster) as here:
        await here.prepare("hello:1", "")
    cluster.resolved, cluster.fetched = 0, []
    async with images(tmp_path, cluster) as here:
        await here.prepare("hello:1", "", pb.IMAGE_PULL_POLICY_MISSING)
        assert (cluster.resolved, cluster.fetched) == (0, [])
        await here.prepare("hello:1", "", pb.IMAGE_PULL_POLICY_ALWAYS)
        assert cluster.resolved == 1
        cluster.gone = True
        with pytest.raises(Temporary, match="gone"):
            await here.prepare("hello:1", "", pb.IMAGE_PULL_POLICY_ALWAYS)


@bounded(30)
async def test_never_fetches_nothing(tmp_path: Path, store: ImageStore) -> None:
    cluster = Cluster(store)
    async with images(tmp_path, cluster) as here:
        for digest in ("", store.resolve("hello:1").digest):
            with pytest.raises(Refused, match="not on this node"):
                await here.prepare("hello:1", digest, pb.IMAGE_PULL_POLICY_NEVER)
        assert (cluster.resolved, cluster.fetched) == (0, [])
        await here.prepare("hello:1", "")
        await here.prepare("hello:1", "", pb.IMAGE_PULL_POLICY_NEVER)


@bounded(30)
async def test_what_is_never_fetched_and_damaged_is_refused(tmp_path: Path, store: ImageStore) -> None:
    """With the same remedy as what is not there."""
    async with images(tmp_path, Cluster(store)) as here:
        digest = (await here.prepare("hello:1", "")).digest
    (tmp_path / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(b"{}")
    async with images(tmp_path, Cluster(store)) as here:
        with pytest.raises(Refused, match="load it there"):
            await here.prepare("hello:1", digest, pb.IMAGE_PULL_POLICY_NEVER)


# Room
# -------------------------------------------------------------------------------------------------------------------


NOTHING_NEEDED = imageroom.Needed(digests=frozenset(), references=frozenset())


@bounded(30)
async def test_what_is_needed_stays_and_the_rest_makes_room(tmp_path: Path, store: ImageStore) -> None:
    """And what was removed comes again when it is asked for."""
    cluster = Cluster(store)
    digest = store.resolve("hello:1").digest
    async with images(tmp_path, cluster) as here:
        await here.prepare("hello:1", "")
        await here.prune(NOTHING_NEEDED, collect.everything)
        assert here.store.has(digest), "its task is about to start"
        here._used.clear()
        for needed in (
            imageroom.Needed(digests=frozenset({digest}), references=frozenset()),
            imageroom.Needed(digests=frozenset(), references=frozenset({"hello:1"})),
        ):
            await here.prune(needed, collect.everything)
            assert layer_of(store) in here.holdings
        await here.prune(NOTHING_NEEDED, collect.everything)
        assert not here.store.has(digest)
        assert layer_of(store) not in here.holdings, "no other node is sent here for it"
        assert list(here.store.layers.iterdir()) == []
        prepared = await here.prepare("hello:1", "")
        assert is_executable(Path(prepared.layers[0], "bin/busybox"))


@bounded(30)
async def test_what_no_tag_means_any_more_stays_as_long_as_the_rest(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It was named by its digest, or its tag has moved: the next task may start from it, and others may fetch it."""
    theirs = ImageStore(tmp_path_factory.mktemp("theirs"))
    first, second, third = (small_image(theirs, name, number) for number, name in enumerate(("a:1", "a:2", "a:3")))
    cluster = Cluster(theirs)
    async with images(tmp_path, cluster) as here:
        await here.prepare("web:1", first)
        await here.prepare("web:1", second)
        await here.prepare(f"web@{third}", third)
        here._used.clear()
        await here.prune(NOTHING_NEEDED, collect.nothing)
        assert all(here.store.has(digest) and digest in here.holdings for digest in (first, second, third))
        assert here.store.resolve("web:1").digest == second
        await here.prune(NOTHING_NEEDED, collect.unused_since(time.time() + 60))
        assert not any(map(here.store.has, (first, second, third)))


@bounded(60)
async def test_a_store_full_of_names_starts_what_is_new(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing is wrong with the image, and room is made."""
    theirs = ImageStore(tmp_path_factory.mktemp("theirs"))
    old, new = small_image(theirs, "a:1", 1), small_image(theirs, "a:2", 2)
    async with images(tmp_path, Cluster(theirs)) as here, asyncio.TaskGroup() as group:
        await here.prepare("app:0", old)
        fill(here.store, old)
        assert (await here.prepare("new:1", new)).digest == new
        os.utime(tmp_path / "blobs/sha256" / old.removeprefix("sha256:"), (time.time() - 3600,) * 2)
        here._used.clear()
        restored = asyncio.Event()
        room = group.create_task(ImageRoom(here, lambda: NOTHING_NEEDED, imageroom.Limits(), restored).run())
        restored.set()
        await until(lambda: len(here.store.names()) < 10, what="room was made", timeout_s=10)
        room.cancel()


def small_image(store: ImageStore, name: str, number: int) -> str:
    """The digest of an image with one small file."""
    return build_image(store, [File(path="data", content=bytes([number]))], Config(cmd=("/data",)), name).digest


def fill(store: ImageStore, digest: str) -> None:
    """As many names as the store takes, all of one image, in one write."""
    (entry,) = store._names.read().values()
    entries = {}
    for number in range(names.MAX_NAMES):
        name = f"docker.io/library/app:{number}"
        entries[name] = dataclasses.replace(entry, digest=digest, annotations=((layout.REF_NAME, name),))
    store._names._write(entries)


@bounded(30)
async def test_nothing_is_removed_while_an_image_is_on_its_way(tmp_path: Path, store: ImageStore) -> None:
    """Its parts have no name yet."""
    cluster = Cluster(store)
    async with images(tmp_path, cluster) as here, asyncio.TaskGroup() as group:
        waiting = group.create_task(here.prepare("hello:1", ""))
        await until(lambda: bool(list((tmp_path / "blobs/sha256").iterdir())), what="a part has come", every_s=0.0)
        here._used.clear()  # only that it is on its way keeps it
        await here.prune(NOTHING_NEEDED, collect.everything)
        prepared = await waiting
        assert is_executable(Path(prepared.layers[0], "bin/busybox"))


@bounded(30)
async def test_a_removal_keeps_no_task_waiting_whose_image_it_spares(tmp_path: Path, store: ImageStore) -> None:
    """It may wait for the store for a minute, and large folders take as long."""
    cluster = Cluster(store)
    digest, other = store.resolve("hello:1").digest, f"sha256:{'0' * 64}"
    async with images(tmp_path, cluster) as here, asyncio.TaskGroup() as group:
        await here.prepare("hello:1", digest)
        here._used.clear()
        needed = imageroom.Needed(digests=frozenset({digest}), references=frozenset())
        with ImageStore(tmp_path).hold():
            removal = group.create_task(here.prune(needed, collect.everything))
            await until(lambda: bool(here._spared), what="the removal waits")
            await within(5, here.prepare("hello:1", digest), what="its task starts")
            assert not removal.done()
            waiting = group.create_task(here._spare(other))
            await asyncio.sleep(0)
            assert not waiting.done(), "this one may be just going"
        await removal
        await waiting


@bounded(30)
async def test_a_disk_that_fails_ends_no_agent(tmp_path: Path, store: ImageStore) -> None:
    """What cannot be looked at is told, and looked at again."""
    folder, elsewhere = tmp_path / "node", tmp_path / "elsewhere"
    async with images(folder, Cluster(store)) as here:
        await here.prepare("hello:1", "")
        room = ImageRoom(here, lambda: NOTHING_NEEDED, imageroom.Limits(), asyncio.Event())
        folder.rename(elsewhere)
        await room.look()
        elsewhere.rename(folder)
        assert here.store.resolve("hello:1").digest == store.resolve("hello:1").digest


@bounded(30)
async def test_a_download_that_fills_the_disk_makes_room(tmp_path: Path, store: ImageStore) -> None:
    """At marks that every disk is past: what was used last goes, once nothing needs it and no task waits for it."""
    cluster = Cluster(store)
    limits = imageroom.Limits(marks=collect.Marks(high_percent=2, low_percent=1))
    async with images(tmp_path, cluster) as here, asyncio.TaskGroup() as group:
        restored = asyncio.Event()
        room = group.create_task(ImageRoom(here, lambda: NOTHING_NEEDED, limits, restored).run())
        restored.set()
        digest = (await here.prepare("hello:1", "")).digest
        await here.prune(NOTHING_NEEDED, collect.nothing)
        assert here.store.has(digest), "it was asked for a moment ago"
        manifest = tmp_path / "blobs/sha256" / digest.removeprefix("sha256:")
        os.utime(manifest, (1, 1))
        here._used.clear()
        here.fetched.set()
        await until(lambda: not here.store.has(digest), what="it has made room")
        room.cancel()
