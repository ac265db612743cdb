"""Blobs on their way: over lines that are cut, at once, in parts, slowly, and while somebody prunes."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from images import errors
from images.image import Image
from images.registry import config, pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import LAYER, Steps, filled, path_of
from tests.support import cutting, registry, stubregistry
from tests.support.aio import bounded, until
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]
KIB, MIB = 1 << 10, 1 << 20
PULL = """
import asyncio, sys
from images.registry import pull, registries
from images.store import ImageStore
from pathlib import Path
async def main():
    async with registries.Registries() as shared:
        print((await pull.pull(ImageStore(Path(sys.argv[1])), sys.argv[2], registries=shared)).digest)
asyncio.run(main())
"""


@bounded(60)
async def test_two_pulls_of_one_layer_cost_one_download(
    tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """Two processes and two tasks at once, into one store: the registry is asked for each blob once."""
    image = load(3 * MIB, 100 * KIB)
    name = f"{peer.address}/web:1"
    async with door() as shared:
        await push.push(store, "web", name, registries=shared)
        before = len(peer.requests())
        command = [sys.executable, "-c", PULL, str(other.root), name]
        environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}
        start = functools.partial(subprocess.Popen, command, stdout=subprocess.PIPE, env=environment, text=True)
        processes = [start() for _ in range(2)]
        await asyncio.gather(*(pull.pull(other, name, registries=shared) for _ in range(2)))
        for process in processes:
            out, _ = await asyncio.to_thread(process.communicate, timeout=30)
            assert out.strip() == image.digest
    asked = [line for line in peer.requests()[before:] if line.startswith("GET") and "/blobs/" in line]
    assert len(asked) == len(set(asked)) == 3
    assert list((other.root / "locks").glob("blob-*")) == []


@bounded(120)
async def test_a_pull_gets_through_a_line_that_cuts_everything(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """Every connection is cut at a random byte: what has come is not fetched again."""
    image = load(6 * MIB, 3 * MIB)
    lots = random.Random(7)
    async with door() as shared, cutting.running(peer.address, lambda: lots.randrange(1, 1 * MIB)) as way:
        await push.push(store, "web", f"{peer.address}/web:1", registries=shared)
        pulled = await pull.pull(other, f"{way.address}/web:1", registries=shared)
        assert pulled.digest == image.digest
        assert way.cuts > 5
        # What a cut loses is what was still on its way; starting over each time would be many times the size.
        assert way.down < 1.5 * sum(layer.size_bytes for layer in image.layers)
    for layer in pulled.layers:
        other.check_blob(layer.digest)


@bounded(120)
async def test_a_push_gets_through_a_line_that_was_cut(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """docker-registry 2.8 cannot go on with half a chunk: it is sent again, and the image arrives whole."""
    image = load(5 * MIB)
    async with door() as shared, cutting.running(peer.address, lambda: MIB if way.cuts < 2 else None) as way:
        assert await push.push(store, "web", f"{way.address}/web:1", registries=shared) == image.digest
        assert way.cuts >= 2
        pulled = await pull.pull(other, f"{peer.address}/web:1", registries=shared)
    assert pulled.digest == image.digest


@bounded(120)
async def test_a_push_goes_on_where_a_cut_left_it(store: ImageStore, other: ImageStore, door: Door, load: Load) -> None:
    """A registry that tells how much it has is sent the rest, however often the line is cut."""
    image = load(8 * MIB, 5 * MIB)
    lots = random.Random(8)
    async with stubregistry.running() as stub, door() as shared:
        async with cutting.running(stub.address, lambda: lots.randrange(1, MIB)) as way:
            assert await push.push(store, "web", f"{way.address}/web:1", registries=shared) == image.digest
        assert way.cuts > 10
        assert way.up < 1.5 * sum(layer.size_bytes for layer in image.layers)
        pulled = await pull.pull(other, f"{stub.address}/web:1", registries=shared)
    assert pulled.digest == image.digest


@bounded(60)
async def test_bandwidth_is_bounded_for_all_transfers_together(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    image = load(400 * KIB, 400 * KIB)
    limits = config.Limits(bandwidth=MIB)
    async with door() as shared, door(limits=limits) as slow:
        name = f"{peer.address}/web:1"
        await push.push(store, "web", name, registries=shared)
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        await pull.pull(other, name, registries=slow)
    assert clock.time() - began_s >= 0.9 * sum(layer.size_bytes for layer in image.layers) / MIB


@pytest.mark.parametrize("damage", [lambda data: b"?" + data[1:], lambda data: data[:-1], lambda data: data + b"?"])
@bounded(60)
async def test_what_the_disk_damaged_is_told_and_not_sent_on(
    store: ImageStore, door: Door, load: Load, damage: Callable[[bytes], bytes]
) -> None:
    """It is this store's fault and not the registry's; the blob is removed, so that a pull brings it again."""
    image = load(100 * KIB)
    path = store.root / "blobs" / "sha256" / image.layers[0].digest.removeprefix("sha256:")
    path.write_bytes(damage(path.read_bytes()))
    async with stubregistry.running() as stub, door() as shared:
        with pytest.raises(errors.DigestMismatch, match="damaged on the disk and is removed"):
            await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
        assert "1" not in stub.documents
        assert (
            len([line for line in stub.lines() if line.startswith("PUT") and image.layers[0].digest[7:] in line]) <= 1
        )
    assert not store.has(image.layers[0].digest)


@bounded(60)
async def test_prune_waits_for_a_pull(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """What a pull has fetched and not yet named is nobody's litter."""
    load(600 * KIB)
    name = f"{peer.address}/web:1"
    fetching = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Tell(Steps):
        def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
            super().step(digest, doing, done_bytes, total_bytes)
            if doing == "downloading":
                loop.call_soon_threadsafe(fetching.set)

    async with door() as shared, door(limits=config.Limits(bandwidth=MIB)) as slow:
        await push.push(store, "web", name, registries=shared)
        async with asyncio.TaskGroup() as group:
            pulled = group.create_task(pull.pull(other, name, registries=slow, progress=Tell()))
            await fetching.wait()
            pruned = group.create_task(asyncio.to_thread(ImageStore(other.root).prune))
        assert pruned.result().blobs == 0
        assert other.missing(pulled.result().digest) == ()


@bounded(60)
async def test_a_pull_that_is_cancelled_leaves_nothing_locked(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """The next pull starts at once, and no work is left below tmp/."""
    image = load(600 * KIB)
    name = f"{peer.address}/web:1"
    async with door() as shared, door(limits=config.Limits(bandwidth=MIB)) as slow:
        await push.push(store, "web", name, registries=shared)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pull.pull(other, name, registries=slow)
        assert list(other.tmp.iterdir()) == []
        assert (await pull.pull(other, name, registries=shared)).digest == image.digest
    assert list((other.root / "locks").glob("blob-*")) == []


@bounded(60)
async def test_what_a_mirror_begins_the_registry_ends(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """A mirror whose line is cut in the middle of a layer: the rest comes from the registry, with Range."""
    image = load(2 * MIB)
    async with cutting.running(peer.address, lambda: 300 * KIB) as way:
        mirrored = config.Registry(mirrors=(config.Mirror(host=way.address),))
        async with door() as shared, door({peer.address: mirrored}) as through:
            name = f"{peer.address}/web:1"
            await push.push(store, "web", name, registries=shared)
            before = len(peer.requests())
            assert (await pull.pull(other, name, registries=through)).digest == image.digest
    asked = [line for line in peer.requests()[before:] if image.layers[0].digest in line]
    assert [line.rpartition(" ")[2] for line in asked] == ["200", "206"]
    assert 200 * KIB < way.down < 400 * KIB


@bounded(60)
async def test_a_pull_that_is_killed_is_no_burden(tmp_path: Path, other: ImageStore, door: Door) -> None:
    """Half of a layer was here: nothing is left of it, nothing is locked, and the next pull starts at once."""
    halfway = asyncio.Event()
    async with stubregistry.running() as stub, door() as shared:
        wanted = filled(stub)

        async def stall(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            answer.content_length = len(LAYER)
            await answer.prepare(request)
            await answer.write(LAYER[: len(LAYER) // 2])
            halfway.set()
            await asyncio.sleep(60)
            return answer

        stub.fault = path_of(makers.descriptor(LAYER, "")["digest"], answer=stall)
        command = [sys.executable, "-c", PULL, str(other.root), f"{stub.address}/web:1"]
        environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        await halfway.wait()
        await until(lambda: any(item.stat().st_size for item in other.tmp.iterdir()), what="some bytes are written")
        locks = other.root / "locks"  # the next pull takes no lock of a blob that is here
        await until(lambda: len(list(locks.glob("blob-*"))) == 1, what="only the layer is on its way")
        process.kill()
        await process.wait()
        stub.fault = None
        store = ImageStore(other.root)
        assert list(store.tmp.iterdir()) == []
        assert (await pull.pull(store, f"{stub.address}/web:1", registries=shared)).digest == wanted
    assert list((store.root / "locks").glob("blob-*")) == []
