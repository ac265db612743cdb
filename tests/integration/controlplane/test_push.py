"""A push: only what the cluster lacks is sent, a cut costs nothing, and nothing shows before the last step."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.images.cluster import ClusterImages
from controlplane.images.keeper import Keeper
from controlplane.store import memory
from controlplane.store.cache import Cache
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as pb
from tests.support import aio, api_world, blobserving, instances
from tests.support.api_world import refusal
from tests.support.pushing import MIB, fetched, made, missing, push, send


@aio.bounded(30)
async def test_a_pushed_image_has_the_name_and_the_digest_that_it_had(tmp_path: Path) -> None:
    store = made(tmp_path / "mine")
    async with api_world.opened(tmp_path, known=()) as world:
        image = (await push(world.stub, store, "web:1")).image
        assert (image.meta.name, image.status.digest) == ("web:1", store.resolve("web:1").digest)
        layer = store.resolve("web:1").layers[0].digest
        assert await fetched(world.address, layer) == layer
        assert await missing(world.stub, store, "web:1") == {}
        store.tag("web:2", image.status.digest)
        assert (await push(world.stub, store, "web:2")).image.status == image.status


@aio.bounded(30)
async def test_a_cut_upload_goes_on_where_it_was_cut_also_after_a_restart(tmp_path: Path) -> None:
    store = made(tmp_path / "mine")
    layer = store.resolve("web:1").layers[0].digest
    kept = memory.MemoryStore()
    async with api_world.opened(tmp_path, kept, known=()) as world:
        assert (await missing(world.stub, store, "web:1"))[layer] == 0
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await send(world.stub, store, layer, upto=2 * MIB)
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert f"cut off on its way, at byte {2 * MIB}" in error.message
    async with api_world.opened(tmp_path, known=()) as world:
        assert (await missing(world.stub, store, "web:1"))[layer] == 2 * MIB
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await send(world.stub, store, layer, offset=2 * MIB + 1)
        assert refusal(raised.value)[0] is grpc.StatusCode.ABORTED
        await send(world.stub, store, layer, offset=2 * MIB)
        assert await fetched(world.address, layer) == layer


@aio.bounded(30)
async def test_nothing_shows_before_every_blob_has_come(tmp_path: Path) -> None:
    store = made(tmp_path / "mine")
    async with api_world.opened(tmp_path, known=()) as world:
        manifest = store.read_document(store.resolve("web:1").digest)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.PushImage(pb.PushImageRequest(name="web:1", manifest=manifest))
        assert refusal(raised.value)[0] is grpc.StatusCode.NOT_FOUND
        assert not (await world.stub.List(pb.ListRequest(kind="image"))).objects
        assert ImageStore(tmp_path / "images").list() == ()


@aio.bounded(30)
async def test_other_bytes_than_announced_are_thrown_away(tmp_path: Path) -> None:
    store, other = made(tmp_path / "mine"), made(tmp_path / "other")
    layer = store.resolve("web:1").layers[0].digest
    async with api_world.opened(tmp_path, known=()) as world:

        async def lie() -> AsyncIterator[pb.PushBlobRequest]:
            yield pb.PushBlobRequest(start=pb.PushBlobStart(digest=layer, size=store.size_bytes(layer)))
            with other.open(other.resolve("web:1").layers[0].digest) as file:
                while chunk := file.read(MIB):
                    yield pb.PushBlobRequest(chunk=chunk)

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.PushBlob(lie())
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "the bytes have digest" in error.message
        assert (await missing(world.stub, store, "web:1"))[layer] == 0


@aio.bounded(30)
async def test_what_does_not_fit_is_refused_before_it_is_sent_and_told_what_holds_the_room(tmp_path: Path) -> None:
    small, large = made(tmp_path / "mine"), made(tmp_path / "other", "db:2", size=8 * MIB)
    async with api_world.opened(tmp_path, images_limit_bytes=10 * MIB, known=()) as world:
        await push(world.stub, small, "web:1")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await missing(world.stub, large, "db:2")
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.message.startswith("8Mi more do not fit: the cluster's images take 3Mi of the 10Mi")
        assert error.hint.startswith("the largest are web:1 (3Mi); `orchctl delete image/NAME` frees some")
        await world.stub.Delete(pb.DeleteRequest(reference=pb.ObjectReference(kind="image", name="web:1")))
        assert (await push(world.stub, large, "db:2")).image.meta.name == "db:2"


@aio.bounded(30)
async def test_what_a_revision_may_still_start_stays_when_its_name_moves_or_goes(tmp_path: Path) -> None:
    store = made(tmp_path / "mine")
    first = store.resolve("web:1")
    async with api_world.opened(tmp_path, known=()) as world:
        await push(world.stub, store, "web:1")
        revision = api_world.revision("web", images={"web:1": first.digest})
        await world.put(revision)
        build_image(store, [File(path="data", content=b"2")], Config(), "web:1")
        await push(world.stub, store, "web:1")
        await world.stub.Delete(pb.DeleteRequest(reference=pb.ObjectReference(kind="image", name="web:1")))
        layer = first.layers[0].digest
        assert await fetched(world.address, layer) == layer
        await world.remove(revision)
        await world.images.tidy()
        assert not world.images.has(layer)


@aio.bounded(60)
async def test_the_next_leader_serves_what_the_one_before_took_in(tmp_path: Path) -> None:
    """The leader is killed after a push; another one has the image already, and gives it to whoever asks."""
    mine = made(tmp_path / "mine")
    image = mine.resolve("web:1")
    store = memory.MemoryStore()
    async with instances.instances(store, tmp_path, "cp1", "cp2") as (first, second):
        async with first.stub() as stub:
            await push(stub, mine, "web:1")
        whole = ImageStore(tmp_path / "cp2")
        await aio.until(
            lambda: whole.has(image.digest) and not whole.missing(image.digest),
            what="the follower has the image",
            timeout_s=10,
        )
        assert first.task is not None
        first.task.cancel()
        await aio.until(second.leads, what="the other one leads", timeout_s=20)
        layer = image.layers[0].digest
        assert await fetched(second.address, layer) == layer


@aio.bounded(30)
async def test_an_image_that_no_instance_has_comes_from_a_node_that_runs_it(tmp_path: Path) -> None:
    """A disk was lost; the node's bytes are looked at before they are believed."""
    mine = made(tmp_path / "mine")
    image = mine.resolve("web:1")
    async with (
        blobserving.serving(mine) as honest,
        blobserving.lying(mine) as liar,
        api_world.opened(tmp_path, known=()) as world,
        asyncio.TaskGroup() as group,
    ):
        keeper = Keeper(world.images, world.cache, instances=nobody, nodes=lambda _: [liar, honest])
        running = group.create_task(keeper.run())
        stored = api_world.image("web:1")
        stored.status.digest = image.digest
        await world.put(stored)
        await aio.until(lambda: world.images.has(image.layers[0].digest), what="it was fetched", timeout_s=10)
        assert await asyncio.to_thread(world.images.is_whole, image.digest)
        running.cancel()


async def nobody() -> Mapping[str, str]:
    return {}


def test_a_store_that_does_not_answer_has_nothing_removed(tmp_path: Path) -> None:
    """Nobody knows what it would name."""

    async def scenario() -> None:
        images = ClusterImages(tmp_path / "images", Cache(memory.MemoryStore()))
        digest = images.store.put_bytes(b"{}")
        await images.tidy()
        assert images.has(digest)
        assert images.is_untidy
        await images.close()

    asyncio.run(scenario())


@aio.bounded(30)
async def test_what_can_be_no_blob_is_refused(tmp_path: Path) -> None:
    good = f"sha256:{'a' * 64}"
    async with api_world.opened(tmp_path, known=()) as world:
        for start in (
            pb.PushBlobStart(digest="../../etc/passwd", size=1),
            pb.PushBlobStart(digest=good, size=-1),
            pb.PushBlobStart(digest=good, size=1, offset=-1),
            pb.PushBlobStart(digest=good, size=1, offset=2),
            pb.PushBlobStart(digest=good, size=1 << 40),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await world.stub.PushBlob(iter([pb.PushBlobRequest(start=start)]))
            assert refusal(raised.value)[0] is grpc.StatusCode.INVALID_ARGUMENT, start
        assert list((tmp_path / "images/parts").iterdir()) == []
        sizes = [pb.BlobSize(digest=f"sha256:{number:064x}", size=1) for number in range(1001)]
        with pytest.raises(grpc.aio.AioRpcError, match="at most"):
            await world.stub.MissingBlobs(pb.MissingBlobsRequest(blobs=sizes))


@aio.bounded(30)
async def test_a_layer_that_the_disk_has_lost_is_fetched_again_when_it_is_asked_for(tmp_path: Path) -> None:
    """Whoever asks is told to wait, and not that there is no such image."""
    mine = made(tmp_path / "mine")
    image = mine.resolve("web:1")
    async with (
        blobserving.serving(mine) as other,
        api_world.opened(tmp_path, known=()) as world,
        asyncio.TaskGroup() as group,
    ):
        await push(world.stub, mine, "web:1")
        keeper = Keeper(world.images, world.cache, instances=nobody, nodes=lambda _: [other])
        running = group.create_task(keeper.run())
        layer = image.layers[0].digest
        (tmp_path / "images/blobs/sha256" / layer.removeprefix("sha256:")).unlink()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await fetched(world.address, layer)
        assert refusal(raised.value)[0] is grpc.StatusCode.UNAVAILABLE
        await aio.until(lambda: world.images.has(layer), what="it was fetched", timeout_s=10)
        assert await fetched(world.address, layer) == layer
        running.cancel()
