"""What a node keeps of images, what makes room, and who waits for that."""

import asyncio
import dataclasses
import os
import time
from pathlib import Path

import pytest

from agent.adapters.imageroom import ImageRoom
from agent.core import imageroom
from images import collect, layout, names
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from tests.support.aio import bounded, until, within
from tests.support.nodeimages import Cluster, images, is_executable, layer_of

pytestmark = pytest.mark.root


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
