"""Images whose name says a registry: settled when they are applied, fetched by the node when the cluster has none."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

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
from tests.integration.agent.test_images import Cluster, images
from tests.support import registry
from tests.support.aio import bounded

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


@bounded(60)
async def test_exactly_the_settled_image_comes_from_its_registry(
    tmp_path: Path, store: ImageStore, peer: registry.Server
) -> None:
    """The tag moves in between; what was settled is what starts, and what is here starts without the registry."""
    name = f"{peer.address}/team/web:1"
    first = await publish(peer, tmp_path / "builder", "one")
    settled = await ControlPlane().resolve([name, "127.0.0.1:1/gone:1"])
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
