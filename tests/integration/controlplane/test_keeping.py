"""What an instance keeps of images and what it removes: never what is on its way, whatever one disk read says."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import grpc.aio
import pytest

from controlplane.images import holds, keeper
from controlplane.images.keeper import Keeper
from controlplane.store import errors as store_errors
from images import disk
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc
from tests.support import aio, api_world, blobserving, pushing

DAY_S = 24 * 3600


@aio.bounded(30)
async def test_a_removal_that_waited_for_its_turn_sees_what_has_begun_to_come_in(tmp_path: Path) -> None:
    """Two deletions with a push between them: the second one was asked for before the push had begun."""
    async with api_world.opened(tmp_path, known=()) as world:
        images = world.images
        came: list[str] = []

        async def bring(removal: "asyncio.Future[None]") -> None:
            async with images.changing():
                came.append(images.store.put_bytes(b"a part that has no name yet"))
                await removal
                assert images.has(came[0])

        with ImageStore(tmp_path / "images").hold():  # the first removal waits for it, and holds the lock meanwhile
            first = asyncio.ensure_future(images.tidy())
            await aio.until(images._tidying.locked, what="the first removal goes on")
            second: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            push = asyncio.ensure_future(bring(second))
            await asyncio.sleep(0)  # it is in the queue before the second
            removal = asyncio.ensure_future(images.tidy())
            removal.add_done_callback(lambda _: second.set_result(None))
            await asyncio.sleep(0)
        await asyncio.gather(first, push, removal)
        assert not images.has(came[0]), "once it was told that nothing comes of it"


@aio.bounded(30)
async def test_an_image_stays_until_its_name_was_seen(tmp_path: Path) -> None:
    """Nobody knows whether a write that was not answered was carried out, and a cache may be behind."""
    mine = pushing.made(tmp_path / "mine")
    async with api_world.opened(tmp_path, known=()) as world:
        images = world.images
        manifest = mine.read_document(mine.resolve("web:1").digest)
        for digest in await pushing.missing(world.stub, mine, "web:1"):
            await pushing.send(world.stub, mine, digest)
        with contextlib.suppress(store_errors.Unavailable):
            async with images.changing():
                image = await images.push_image("web:1", manifest)
                raise store_errors.Unavailable("nobody has answered")
        await images.tidy()
        assert await asyncio.to_thread(images.is_whole, image.status.digest)
        await world.put(image)
        await images.tidy()
        assert ImageStore(tmp_path / "images").resolve("web:1").digest == image.status.digest
        assert not images._holds, "the name holds it from here on"
        await world.remove(image)
        await images.tidy()
        assert not images.has(image.status.digest)


def test_what_nobody_speaks_of_any_more_is_held_no_longer() -> None:
    now = [0.0]
    held = holds.Holds(lambda: now[0])
    held.keep(["a", "b"])
    held.expect("web:1", "m", ["a"])
    assert (held.blobs, held.images) == ({"b"}, {"m"})
    held.note({"web:1": "another"})
    now[0] = holds.HOLD_S - 1
    held.lapse()
    assert held
    now[0] = holds.HOLD_S
    held.lapse()
    assert not held


@aio.bounded(30)
async def test_names_that_are_right_are_not_written_again(tmp_path: Path) -> None:
    """Each is flushed to the disk that etcd writes to as well."""
    mine = pushing.made(tmp_path / "mine")
    async with api_world.opened(tmp_path, known=()) as world:
        await pushing.push(world.stub, mine, "web:1")
        index = tmp_path / "images" / "index.json"
        before = index.stat()
        await world.images.tidy()
        assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        index.write_bytes(index.read_bytes().replace(b"web:1", b"web:2"))
        await world.images.tidy()
        assert set(ImageStore(tmp_path / "images").names()) == {"docker.io/library/web:1"}


@aio.bounded(30)
async def test_imports_and_removals_keep_no_node_waiting_for_a_layer(tmp_path: Path) -> None:
    """They take minutes, and a node gives up after seconds of silence."""
    mine = pushing.made(tmp_path / "mine")
    async with api_world.opened(tmp_path, known=()) as world:
        await pushing.push(world.stub, mine, "web:1")
        gate = threading.Event()
        busy = [asyncio.ensure_future(world.images.threads.run(gate.wait, 20)) for _ in range(16)]
        layer = mine.resolve("web:1").layers[0].digest
        try:
            assert await aio.within(10, pushing.fetched(world.address, layer), what="it is sent") == layer
        finally:
            gate.set()
        assert all(await asyncio.gather(*busy))


@aio.bounded(30)
async def test_what_was_pushed_under_a_registrys_name_is_kept_whole_by_every_instance(tmp_path: Path) -> None:
    """The registry never had it: undo would find it nowhere. Nodes are not asked for what a registry has."""
    pushed, pulled = pushing.made(tmp_path / "a", "reg.lan/x:1"), pushing.made(tmp_path / "b", "reg.lan/y:1")
    digests = [store.resolve(name).digest for store, name in ((pushed, "reg.lan/x:1"), (pulled, "reg.lan/y:1"))]
    async with (
        blobserving.serving(pushed) as instance,
        blobserving.serving(pulled) as node,
        api_world.opened(tmp_path, known=()) as world,
        asyncio.TaskGroup() as group,
    ):

        async def others() -> Mapping[str, str]:
            return {"cp2": instance}

        kept = Keeper(world.images, world.cache, instances=others, nodes=lambda _: [node])
        running = group.create_task(kept.run())
        images = dict(zip(("reg.lan/x:1", "reg.lan/y:1"), digests, strict=True))
        await world.put(api_world.revision("web", images=images))
        layer = pushed.resolve("reg.lan/x:1").layers[0].digest
        await aio.until(lambda: world.images.has(layer), what="it was fetched from the other instance", timeout_s=10)
        await aio.until(lambda: digests[1] in kept._asked, what="the other one was asked for")
        assert not world.images.has(digests[1])
        running.cancel()


# Trouble --------------------------------------------------------------------------------------------------------------


async def nobody() -> Mapping[str, str]:
    return {}


@aio.bounded(30)
async def test_a_disk_that_cannot_read_one_image_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    """Nor does it end the instance."""
    good = pushing.made(tmp_path / "good")
    bad = pushing.made(tmp_path / "bad", "bad:1")
    async with (
        blobserving.serving(good) as other,
        api_world.opened(tmp_path, known=()) as world,
        asyncio.TaskGroup() as group,
    ):
        broken = tmp_path / "images/blobs/sha256" / bad.resolve("bad:1").digest.removeprefix("sha256:")
        broken.mkdir()
        running = group.create_task(Keeper(world.images, world.cache, instances=nobody, nodes=lambda _: [other]).run())
        for name, store in (("bad:1", bad), ("web:1", good)):
            image = api_world.image(name)
            image.status.digest = store.resolve(name).digest
            await world.put(image)
        layer = good.resolve("web:1").layers[0].digest
        await aio.until(lambda: world.images.has(layer), what="the other one was fetched", timeout_s=10)
        await world.images.tidy()
        assert not running.done()
        assert world.images.is_untidy
        running.cancel()


def test_what_goes_while_it_is_counted_takes_nothing(tmp_path: Path) -> None:
    """A part becomes a blob, a blob is removed: between the list of a folder and the look at a file."""
    (tmp_path / "there").write_bytes(b"1234")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert disk.folder_bytes(tmp_path) == 4


@aio.bounded(30)
async def test_uploads_that_nobody_goes_on_with_are_forgotten_also_when_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "IDLE_S", 0.05)
    monkeypatch.setattr(keeper, "TIDY_AFTER_S", 0.01)
    async with api_world.opened(tmp_path, known=()) as world, asyncio.TaskGroup() as group:
        running = group.create_task(Keeper(world.images, world.cache, instances=nobody, nodes=lambda _: []).run())
        for name in ("a" * 64, "b" * 64):  # the first goes with the look at the start
            part = tmp_path / "images/parts" / name
            part.write_bytes(b"1")
            os.utime(part, (time.time() - 2 * DAY_S,) * 2)
            await aio.until(lambda part=part: not part.exists(), what="it is forgotten")
        assert not world.images.is_untidy
        running.cancel()


@aio.bounded(30)
async def test_an_image_goes_at_once_with_its_name_though_it_was_just_fetched(tmp_path: Path) -> None:
    """From its beginning: there is no byte before that."""
    mine = pushing.made(tmp_path / "mine", size=1000)
    async with api_world.opened(tmp_path, known=()) as world, grpc.aio.insecure_channel(world.address) as channel:
        image = (await pushing.push(world.stub, mine, "web:1")).image
        blobs = dispatcher_pb2_grpc.BlobsStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="a blob has no byte -5") as refused:
            await blobs.Fetch(wire.FetchBlobRequest(digest=image.status.digest, offset=-5)).read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        part = await blobs.Fetch(wire.FetchBlobRequest(digest=image.status.digest)).read()
        assert part.chunk == mine.read_document(image.status.digest)
        reference = pb.ObjectReference(kind="image", name="web:1")
        await world.stub.Delete(pb.DeleteRequest(reference=reference))
        assert not world.images.has(image.status.digest), "and it goes at once with its name"
