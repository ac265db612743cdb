"""A glance at a registry: right about what is here, silent about all else, and never long."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from images.image import Image
from images.registry import config, credentials, glance, pull, registries
from images.store import ImageStore
from tests.integration.images.registries.support import Answer, filled
from tests.support import stubregistry
from tests.support.aio import bounded

HEAD = ["HEAD /v2/web/manifests/1"]


@asynccontextmanager
async def pulled(store: ImageStore, kept: credentials.DockerConfig) -> AsyncIterator[stubregistry.Stub]:
    """`web:1` is in the store, and nobody was asked since."""
    async with stubregistry.running() as stub, registries.Registries(config.Config(), kept=kept) as shared:
        filled(stub)
        await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        stub.asked.clear()
        yield stub


async def look(store: ImageStore, name: str, settings: config.Config | None = None) -> Image | None:
    return await asyncio.to_thread(glance.unchanged, store, name, settings=settings or config.Config())


@bounded(20)
async def test_what_is_up_to_date_costs_one_question_without_credentials(
    store: ImageStore, kept: credentials.DockerConfig
) -> None:
    async with pulled(store, kept) as stub:
        found = await look(store, f"{stub.address}/web:1")
        assert found == store.resolve(f"{stub.address}/web:1")
        assert stub.lines() == HEAD
        assert "Authorization" not in stub.asked[0].headers


@bounded(20)
async def test_a_tag_that_moved_or_that_is_not_here_in_full_is_left_to_the_pull(
    store: ImageStore, kept: credentials.DockerConfig
) -> None:
    async with pulled(store, kept) as stub:
        name = f"{stub.address}/web:1"
        image = store.resolve(name)
        assert await look(store, f"{stub.address}/other:1") is None
        assert await look(store, f"{stub.address}/web@{image.digest}") is None
        assert stub.lines() == [], "what is not here by its name is asked by whoever fetches it"
        filled(stub, history=[])
        assert await look(store, name) is None
        (store.root / "blobs/sha256" / image.layers[0].digest.removeprefix("sha256:")).unlink()
        stub.asked.clear()
        assert await look(store, name) is None
        assert stub.lines() == []


def says(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return answer


async def hangs(_: web.Request) -> web.StreamResponse | None:
    await asyncio.sleep(60)
    return None


@bounded(20)
@pytest.mark.parametrize(
    "answer",
    [
        says(200),
        says(200, Docker_Content_Digest="sha256:" + "0" * 64),
        says(401, WWW_Authenticate='Basic realm="tests"'),
        says(302, Location="http://127.0.0.1:1/"),
        says(429),
        says(500),
        hangs,
    ],
    ids=["no digest", "another", "login", "redirect", "busy", "broken", "silent"],
)
async def test_any_other_answer_is_none(
    store: ImageStore, kept: credentials.DockerConfig, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not followed, tried again or waited for; whoever pulls then hears what is wrong."""
    monkeypatch.setattr(glance, "TIME_S", 0.3)
    async with pulled(store, kept) as stub:
        stub.fault = answer
        assert await look(store, f"{stub.address}/web:1") is None
        assert stub.lines() == HEAD


@bounded(20)
async def test_an_answer_that_trickles_is_cut(
    store: ImageStore, kept: credentials.DockerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, and the whole does not."""
    monkeypatch.setattr(glance, "TIME_S", 0.3)
    gone = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not reader.at_eof() and not writer.is_closing():
            writer.write(b"X: y\r\n")
            await asyncio.wait([asyncio.ensure_future(reader.read(1 << 16))], timeout=0.05)
        writer.close()
        gone.set()

    async with pulled(store, kept) as stub:
        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        async with server:
            place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/web:1"
            store.tag(place, store.resolve(f"{stub.address}/web:1").digest)
            assert await look(store, place) is None
            await asyncio.wait_for(gone.wait(), 10)


@bounded(20)
async def test_where_somebody_else_would_be_asked_first_nobody_is(
    store: ImageStore, kept: credentials.DockerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mirrors, token services of another host, and nobody there at all."""
    async with pulled(store, kept) as stub:
        name, host = f"{stub.address}/web:1", stub.address
        for registry in (
            config.Registry(mirrors=(config.Mirror(host="127.0.0.1:1"),)),
            config.Registry(token_realms=frozenset({"auth.example.com"})),
        ):
            assert await look(store, name, config.Config(registries={host: registry})) is None
        store.tag("registry.invalid/web:1", store.resolve(name).digest)
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        assert await look(store, "registry.invalid/web:1") is None
        assert stub.lines() == []
    assert await look(store, name) is None, "nobody is there any more"


def test_it_imports_nothing_that_speaks_to_registries() -> None:
    """Or it would not be worth having."""
    code = "import sys; from images.registry import config, glance; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "images.registry.glance" in done.stdout.split()
    assert not {"aiohttp", "asyncio"} & {*done.stdout.split()}
