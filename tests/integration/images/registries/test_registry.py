"""Pull and push against Debian's docker-registry, with Debian's skopeo and podman on the same registry."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from images import archive, documents, errors, manifest
from images.image import Image
from images.registry import config, pull, push, registries
from images.registry import errors as registry_errors
from images.store import ImageStore
from tests.integration.images.registries.support import Steps, skopeo
from tests.support import registry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]
KIB, MIB = 1 << 10, 1 << 20


@bounded(60)
async def test_what_is_pushed_is_pulled_with_the_same_digests(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """From one store through a registry into another: manifest, config and layers are the same bytes."""
    image = load(100, 5 * MIB, 0)
    name = f"{peer.address}/team/web:1"
    async with door() as shared:
        assert await push.push(store, "web", name, registries=shared) == image.digest
        pulled = await pull.pull(other, name, registries=shared)
        assert await pull.resolve(name, registries=shared) == image.digest
    assert (pulled.digest, pulled.layers, pulled.names) == (image.digest, image.layers, (name,))
    for layer in image.layers:
        other.check_blob(layer.digest)


@bounded(60)
async def test_a_pull_of_what_is_there_is_one_head(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    load(1000, 2000)
    name = f"{peer.address}/web:1"
    async with door() as shared:
        await push.push(store, "web", name, registries=shared)
        await pull.pull(other, name, registries=shared)
        before = len(peer.requests())
        steps = Steps()
        await pull.pull(other, name, registries=shared, progress=steps)
        assert peer.requests()[before:] == ["HEAD /v2/web/manifests/1 200"]
        assert steps.words() == {"exists"}


@bounded(60)
async def test_a_tag_that_moved_brings_only_what_is_new(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    name = f"{peer.address}/web:1"
    async with door() as shared:
        load(1000, 2000)
        await push.push(store, "web", name, registries=shared)
        await pull.pull(other, name, registries=shared)
        changed = load(1000, 3000)
        await push.push(store, "web", name, registries=shared)
        before = len(peer.requests())
        assert (await pull.pull(other, name, registries=shared)).digest == changed.digest
    asked = [line for line in peer.requests()[before:] if "/blobs/" in line]
    assert len(asked) == 2, asked  # the config and the second layer; the first is what it was


@bounded(60)
async def test_an_image_can_be_pinned(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """By digest alone it gets no name; nothing is asked of the registry when it is there."""
    image = load(1000)
    async with door() as shared:
        await push.push(store, "web", f"{peer.address}/web:1", registries=shared)
        pinned = f"{peer.address}/web@{image.digest}"
        assert (await pull.pull(other, pinned, registries=shared)).names == ()
        before = len(peer.requests())
        assert (await pull.pull(other, pinned, registries=shared)).digest == image.digest
        assert await pull.resolve(pinned, registries=shared) == image.digest
    assert len(peer.requests()) == before


@bounded(60)
async def test_skopeo_reads_what_we_push_and_we_read_what_skopeo_pushes(
    tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """The digests of manifest and layers are equal in both directions."""
    image = load(100 * KIB, 200)
    ours, theirs = f"{peer.address}/ours:1", f"{peer.address}/theirs:1"
    async with door() as shared:
        await push.push(store, "web", ours, registries=shared)
        skopeo("copy", "--preserve-digests", "--src-tls-verify=false", f"docker://{ours}", f"oci:{tmp_path}/layout:1")
        index = json.loads((tmp_path / "layout/index.json").read_text())
        assert index["manifests"][0]["digest"] == image.digest
        skopeo(
            "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1", f"docker://{theirs}"
        )
        pulled = await pull.pull(other, theirs, registries=shared)
    assert (pulled.digest, pulled.layers) == (image.digest, image.layers)


@pytest.mark.root
@bounded(120)
async def test_podman_pulls_what_we_push_and_we_pull_what_podman_pushes(
    tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    image = load(100 * KIB, 200)
    ours, theirs = f"{peer.address}/ours:1", f"{peer.address}/theirs:1"
    # Its own bound on the length of one of its paths is shorter than pytest's folders.
    with tempfile.TemporaryDirectory(prefix="pytest-podman-", dir="/tmp") as short:
        places = [f"--root={tmp_path}/podman", f"--runroot={short}/run", f"--tmpdir={short}/tmp"]
        podman = functools.partial(run_podman, *places, "--storage-driver=vfs", "--events-backend=none")
        async with door() as shared:
            await push.push(store, "web", ours, registries=shared)
            await asyncio.to_thread(podman, "pull", "--tls-verify=false", ours)
            digest = json.loads(podman("image", "inspect", ours))[0]["Digest"]
            assert digest == image.digest
            podman("tag", ours, theirs)
            await asyncio.to_thread(podman, "push", "--tls-verify=false", theirs)
            pulled = await pull.pull(other, theirs, registries=shared)
    # podman compresses what it pushes; what is inside stays what it was.
    assert [layer.diff_id for layer in pulled.layers] == [layer.diff_id for layer in image.layers]
    for layer in pulled.layers:
        other.check_blob(layer.digest)


def run_podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


@bounded(60)
async def test_an_index_goes_and_comes_as_a_whole(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server
) -> None:
    """All platforms when asked for; otherwise this machine's, and the name stands for the index."""
    index = two_platforms(store, "multi")
    name = f"{peer.address}/multi:1"
    async with door() as shared:
        assert await push.push(store, "multi", name, registries=shared) == index
        ours = await pull.pull(other, name, registries=shared)
        assert other.names().get(name) == index
        assert ours.platform == manifest.host_platform()
        before = len(peer.requests())
        await pull.pull(other, name, registries=shared)
        assert peer.requests()[before:] == ["HEAD /v2/multi/manifests/1 200"]
        foreign = manifest.Platform(architecture="riscv64")
        theirs = await pull.pull(other, name, registries=shared, platform=foreign)
        assert theirs.platform == foreign
        await pull.pull(other, name, registries=shared, all_platforms=True)
        assert other.names().get(name) == index
        # Part of an index goes as the one image that is here.
        copy = f"{peer.address}/copy:1"
        assert await push.push(other, name, copy, registries=shared) == index
        assert await push.push(other, name, copy, registries=shared, platform=foreign) == theirs.digest
        with pytest.raises(errors.NotFound, match="offers linux/"):
            await pull.pull(other, name, registries=shared, platform=manifest.Platform(architecture="s390x"))


def two_platforms(store: ImageStore, name: str) -> str:
    """An index of an image for this machine and of one for another; its digest."""
    entries = []
    for platform in (manifest.host_platform(), manifest.Platform(architecture="riscv64")):
        layer = makers.archive(makers.member("f", content=platform.architecture.encode()))
        made = archive.import_archive(
            store, makers.stream(makers.files(makers.docker_archive(layer))), name=f"{name}-{platform.architecture}"
        )
        document = json.loads(store.read_document(made.config_digest))
        config_data = documents.dump({**document, "architecture": platform.architecture})
        body = makers.manifest_document(config_data, layer)
        for data in (config_data, body):
            store.put_bytes(data)
        where = {"platform": {"os": "linux", "architecture": platform.architecture}}
        entries.append(makers.descriptor(body, manifest.OCI_MANIFEST, **where))
    digest = store.put_bytes(makers.index_document(*entries))
    store.tag(name, digest)
    return digest


@bounded(60)
async def test_part_of_an_index_is_pushed_as_the_image_that_is_here(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server
) -> None:
    two_platforms(store, "multi")
    name = f"{peer.address}/multi:1"
    async with door() as shared:
        await push.push(store, "multi", name, registries=shared)
        pulled = await pull.pull(other, name, registries=shared)
        assert await push.push(other, name, f"{peer.address}/copy:1", registries=shared) == pulled.digest


@bounded(60)
async def test_a_layer_that_another_repository_has_is_mounted(
    store: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """The store's names say where a layer may be; not one of its bytes is sent again."""
    load(100 * KIB)
    async with door() as shared:
        first = f"{peer.address}/first:1"
        await push.push(store, "web", first, registries=shared)
        store.tag(first, store.resolve("web").digest)
        steps, before = Steps(), len(peer.requests())
        await push.push(store, "web", f"{peer.address}/second:1", registries=shared, progress=steps)
    assert "mounted" in steps.words()
    assert "uploading" not in steps.words()
    assert [line.split()[0] for line in peer.requests()[before:]].count("PATCH") == 0


@bounded(60)
async def test_mirrors_are_asked_first_and_missed_by_nobody(
    tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """What the mirror has comes from it, what it has not from the registry, and a dead mirror costs nothing."""
    image = load(100 * KIB, 200 * KIB)
    with registry.running(tmp_path / "mirror") as mirror:
        places = (
            config.Mirror(host=f"127.0.0.1:{registry.free_port()}"),
            config.Mirror(host=mirror.address, prefix="cache"),
        )
        async with door({peer.address: config.Registry(mirrors=places)}) as shared:
            await push.push(store, "web", f"{mirror.address}/cache/web:1", registries=shared)
            pulled = await pull.pull(other, f"{peer.address}/web:1", registries=shared)
            assert pulled.digest == image.digest
            assert pulled.names == (f"{peer.address}/web:1",)
            assert not [line for line in peer.requests() if "/blobs/" in line]
            load(50 * KIB, name="only", seed=2)
            await push.push(store, "only", f"{peer.address}/only:1", registries=shared)
            assert await pull.pull(other, f"{peer.address}/only:1", registries=shared)
            with pytest.raises(registry_errors.NotFound, match=r"has no such thing.*check the name") as told:
                await pull.pull(other, f"{peer.address}/nothing:1", registries=shared)
    assert re.search(f"mirror {mirror.address}: .*no such thing", "\n".join(told.value.__notes__))
