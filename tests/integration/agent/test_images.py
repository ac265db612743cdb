"""Images on their way to a node: cut downloads, damaged bytes, many who wait, and no control plane."""

import asyncio
from pathlib import Path

import pytest

from agent.adapters.blobserver import BlobServer, serving
from agent.adapters.images import StoredImages
from agent.core import sharing
from agent.errors import Refused, Temporary
from agent.holdings import Holdings
from agent.rpc import Server
from images.store import ImageStore
from protos.orch.v1 import objects_pb2 as pb
from tests.support import blobserving, etcd
from tests.support.aio import bounded, until
from tests.support.nodeimages import Cluster, images, is_executable, layer_of

pytestmark = pytest.mark.root


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
async def test_who_asks_before_the_store_was_looked_at_waits(tmp_path: Path, store: ImageStore) -> None:
    """As tasks do that an agent finds when it starts, with a store of many blobs on a slow disk."""
    here = StoredImages(tmp_path, Cluster(store))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(here.prepare("hello:1", ""))
        done, _ = await asyncio.wait([asking], timeout=0.1)
        assert not done
        life = group.create_task(here.run())
        assert (await asking).digest == store.resolve("hello:1").digest
        life.cancel()


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
