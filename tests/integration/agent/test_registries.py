"""Images whose name says a registry: settled when they are applied, fetched by the node when the cluster has none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from agent.adapters.images import StoredImages
from agent.adapters.registries import Outside
from agent.core.container import PreparedImage
from agent.errors import Refused, Temporary
from controlplane.images.outside import Outside as ControlPlane
from images.image import Config
from images.registry import config, credentials, push, registries
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.images.registries.support import LAYER, filled, path_of
from tests.support import registry, stubregistry
from tests.support.aio import bounded, until
from tests.support.nodeimages import Cluster, images
from tests.unit.images import makers

pytestmark = pytest.mark.root


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[registry.Server]:
    with registry.running(tmp_path / "registry") as server:
        yield server


async def publish(server: registry.Server, folder: Path, text: str) -> str:
    """Push `team/web:1` with another content; its digest there."""
    store = ImageStore(folder)
    name = f"{server.address}/team/web:1"
    build_image(store, [File(path="data", content=text.encode())], Config(cmd=("/data",)), name)
    kept = credentials.DockerConfig(folder / "none.json")
    async with registries.Registries(config.Config(), kept=kept) as shared:
        return await push.push(store, name, registries=shared)


def content(prepared: PreparedImage) -> str:
    """What is in its only file."""
    return Path(prepared.layers[0], "data").read_text()


@contextlib.asynccontextmanager
async def node(folder: Path, store: ImageStore) -> AsyncIterator[tuple[StoredImages, Cluster]]:
    """A node's images, and a cluster that has `hello:1` only."""
    cluster = Cluster(store)
    async with images(folder, cluster, Outside(kept=folder / "none.json")) as here:
        yield here, cluster


@contextlib.asynccontextmanager
async def control_plane(settings: Path | None = None, kept: Path | None = None) -> AsyncIterator[ControlPlane]:
    outside = ControlPlane(settings, kept)
    try:
        yield outside
    finally:
        await outside.close()


@bounded(60)
async def test_exactly_the_settled_image_comes_from_its_registry(
    tmp_path: Path, store: ImageStore, peer: registry.Server
) -> None:
    """The tag moves in between; what was settled is what starts, and what is here starts without the registry."""
    name = f"{peer.address}/team/web:1"
    first = await publish(peer, tmp_path / "builder", "one")
    nowhere = ["127.0.0.1:1/gone:1", "127.0.0.1:99999/gone:1", f"{'a' * 64}.example/gone:1"]
    async with control_plane() as outside:
        settled = await outside.resolve([name, *nowhere])
        assert settled == {name: first}, "a registry that is not there keeps nobody from applying"
    second = await publish(peer, tmp_path / "builder", "two")
    assert second != first
    async with node(tmp_path / "node", store) as (here, cluster):
        prepared = await here.prepare(name, first)
        assert content(prepared) == "one"
        assert {first, here.store.resolve(first).layers[0].digest} <= set(here.holdings.held)
        asked = len(peer.requests())
        assert (await here.prepare(name, "")).digest == first
        assert len(peer.requests()) == asked, "what is here starts without asking anybody"
        assert (await here.prepare(name, "", pb.IMAGE_PULL_POLICY_ALWAYS)).digest == second
        cluster.gone = True
        assert (await here.prepare(name, second)).digest == second


@bounded(60)
async def test_a_registry_that_does_not_have_it_or_is_not_there(
    tmp_path: Path, store: ImageStore, peer: registry.Server
) -> None:
    async with node(tmp_path / "node", store) as (here, _):
        with pytest.raises(Refused, match="team/nothing") as missing:
            await here.prepare(f"{peer.address}/team/nothing:1", "")
        assert missing.value.reason == "ImageMissing"
        with pytest.raises(Temporary) as unreachable:
            await here.prepare("127.0.0.1:1/team/web:1", "")
        assert unreachable.value.reason == "RegistryUnavailable"
        with pytest.raises(Refused):
            await here.prepare("other:1", "")


@bounded(60)
async def test_bytes_that_are_damaged_on_the_way_are_fetched_again(tmp_path: Path, store: ImageStore) -> None:
    """A task is told to try again, and then gets what it asked for."""
    async with stubregistry.running() as stub, node(tmp_path / "node", store) as (here, _):
        digest = filled(stub)
        layer = makers.descriptor(LAYER, "")["digest"]
        stub.blobs[layer] = bytes(len(LAYER))
        with pytest.raises(Temporary) as told:
            await here.prepare(f"{stub.address}/team/web:1", digest)
        assert told.value.reason == "ImageDamaged"
        stub.blobs[layer] = LAYER
        assert (await here.prepare(f"{stub.address}/team/web:1", digest)).digest == digest


@bounded(60)
async def test_images_at_once_share_the_bound_on_downloads(tmp_path: Path, store: ImageStore) -> None:
    """However many tasks start, and whatever fails beside them: four layers at a time."""
    now, peak = 0, 0
    async with stubregistry.running() as stub, node(tmp_path / "node", store) as (here, _):
        names = []
        for number in range(6):
            digest = filled(stub, *(makers.archive(makers.member(f"{number}-{part}")) for part in range(4)))
            names.append((f"{stub.address}/web:{number}", digest))

        async def counted(_: web.Request) -> None:
            nonlocal now, peak
            now += 1
            peak = max(peak, now)
            await asyncio.sleep(0.05)  # so that those who may come at once do
            now -= 1

        stub.fault = path_of("/blobs/", answer=counted)
        async with asyncio.TaskGroup() as group:
            for name, digest in names[:3]:
                group.create_task(here.prepare(name, digest))
            await until(lambda: now == config.Limits().downloads, what="as many come as may")
            # A name that leads nowhere begins all memories anew, but not the count.
            with pytest.raises(Temporary):
                await here.prepare("127.0.0.1:1/web:1", f"sha256:{'0' * 64}")
            for name, digest in names[3:]:
                group.create_task(here.prepare(name, digest))
        assert peak == config.Limits().downloads


@bounded(60)
async def test_images_at_once_share_a_token(tmp_path: Path, store: ImageStore) -> None:
    async with stubregistry.running() as stub, node(tmp_path / "node", store) as (here, _):
        digest = filled(stub)

        async def guarded(request: web.Request) -> web.StreamResponse | None:
            if request.path == "/token":
                return web.json_response({"token": "abc"})
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{stub.url}/token"'})
            return None

        stub.fault = guarded
        for name in ("one", "two"):
            stub.documents[name] = stub.documents["1"]
            await here.prepare(f"{stub.address}/web:{name}", "")
        assert (await here.prepare(f"{stub.address}/web:1", digest)).digest == digest
        assert len([line for line in stub.lines() if "/token" in line]) == 1


@bounded(60)
async def test_all_applies_share_one_door(tmp_path: Path) -> None:
    """One connection and one token, until the file that describes the registry is another."""
    settings = tmp_path / "registries.yaml"
    settings.write_text("registries: {}")
    async with stubregistry.running() as stub, control_plane(settings, tmp_path / "none.json") as outside:
        digest = filled(stub)

        async def guarded(request: web.Request) -> web.Response | None:
            if request.path == "/token":
                return web.json_response({"token": "abc"})
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{stub.url}/token"'})
            return None

        stub.fault = guarded
        for _ in range(3):
            assert await outside.resolve([f"{stub.address}/web:1"]) == {f"{stub.address}/web:1": digest}
        assert len([line for line in stub.lines() if "/token" in line]) == 1
        settings.write_text(f"registries: {{'127.0.0.1:1': {{mirrors: ['{stub.address}']}}}}")
        assert await outside.resolve(["127.0.0.1:1/web:1"]) == {"127.0.0.1:1/web:1": digest}


@bounded(60)
async def test_what_is_repaired_in_a_file_counts_for_the_next_image(tmp_path: Path, store: ImageStore) -> None:
    """Also while others are on their way by what stood there before."""
    settings, cluster = tmp_path / "registries.yaml", Cluster(store)
    settings.write_text("registries: {}")
    outside = Outside(settings, tmp_path / "none.json")
    async with stubregistry.running() as stub, images(tmp_path / "node", cluster, outside) as here:
        digest = filled(stub)
        assert (await here.prepare(f"{stub.address}/web:1", "")).digest == digest
        with pytest.raises(Temporary):
            await here.prepare("127.0.0.1:1/web:1", "")
        settings.write_text(f"registries: {{'127.0.0.1:1': {{mirrors: ['{stub.address}']}}}}")
        assert (await here.prepare("127.0.0.1:1/web:1", "")).digest == digest
        settings.write_text("registries: {}")
        with pytest.raises(Temporary):
            await here.prepare("127.0.0.1:1/web:2", "")
