"""Registries that stall, flood, cut and overload: everything ends in time, and nothing half done stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from images import errors as image_errors
from images.image import Image
from images.registry import config, errors, pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import HURRIED, LAYER, TWICE, filled, is_clean, path_of
from tests.support import stubregistry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]
PLAIN = config.Registry(insecure=True)


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"?", lambda data: data + b"more", lambda data: data[:-9]])
@bounded(30)
async def test_a_layer_of_other_bytes_is_not_kept(
    store: ImageStore, door: Door, change: Callable[[bytes], bytes]
) -> None:
    """One byte different, some too many, some too few."""
    async with stubregistry.running() as stub, door() as shared:
        filled(stub)
        digest = makers.descriptor(LAYER, "")["digest"]
        stub.blobs[digest] = change(LAYER)
        with pytest.raises(image_errors.ImageError, match=r"fetch it again|ends before|asked for bytes"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        assert not store.has(digest)
        assert is_clean(store)
        stub.blobs[digest] = LAYER
        assert await pull.pull(store, f"{stub.address}/web:1", registries=shared)


@pytest.mark.parametrize("size", [1, 7, 100])
@bounded(30)
async def test_a_layer_of_which_nothing_comes_is_given_up(store: ImageStore, door: Door, size: int) -> None:
    """However small it is: nothing is no progress."""
    async with stubregistry.running() as stub, door() as shared:
        layer = b"x" * size
        filled(stub, layer)
        stub.blobs[makers.descriptor(layer, "")["digest"]] = b""
        with pytest.raises(errors.Unavailable, match="ends before"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        assert len(stub.asked) < 10


@pytest.mark.parametrize("gap_s", [0.05, 60])
@bounded(30)
async def test_a_layer_that_never_ends_is_given_up(store: ImageStore, door: Door, gap_s: float) -> None:
    """Silence, and one byte from time to time so that it is no silence."""
    async with stubregistry.running() as stub, door(bounds=HURRIED, retry=TWICE) as shared:
        filled(stub)

        async def trickle(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            answer.content_length = len(LAYER)
            await answer.prepare(request)
            while True:
                await answer.write(b"x")
                await asyncio.sleep(gap_s)

        stub.fault = path_of("/blobs/", answer=trickle)
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        with pytest.raises(errors.Unavailable, match=r"slower than|no answer in time"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        assert clock.time() - began_s < 10
    assert is_clean(store)


@bounded(30)
async def test_a_registry_without_ranges_is_read_on_all_the_same(store: ImageStore, door: Door) -> None:
    """What comes again is passed by; a range that was not asked for is refused."""
    lies: dict[str, str] = {}
    async with stubregistry.running() as stub, door() as shared:
        filled(stub)

        async def cut(request: web.Request) -> web.StreamResponse | None:
            if "Range" in request.headers and lies:
                return web.Response(status=206, body=b"x", headers=lies)
            answer = web.StreamResponse()
            data = stub.blobs[request.path.rpartition("/")[2]]
            answer.content_length = len(data)
            await answer.prepare(request)
            await answer.write(data if "Range" in request.headers else data[: len(data) // 2])
            assert request.transport is not None
            request.transport.close()
            return answer

        stub.fault = path_of("/blobs/", answer=cut)
        assert await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        assert [entry for entry in stub.asked if "Range" in entry.headers]
        changed = makers.archive(makers.member("f", content=b"other" * 1000))
        filled(stub, changed)
        lies["Content-Range"] = "bytes 0-0/1"
        with pytest.raises(errors.BadAnswer, match="asked for bytes from"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)


@bounded(30)
async def test_a_busy_registry_is_asked_again(store: ImageStore, door: Door) -> None:
    """429 and 503 are waited out, as long as it says, and told when they do not end."""
    left = [429, 503, 500]
    async with stubregistry.running() as stub, door() as shared:
        filled(stub)

        async def busy(_: web.Request) -> web.StreamResponse | None:
            return web.Response(status=left.pop(), headers={"Retry-After": "0"}) if left else None

        stub.fault = busy
        assert await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        left.extend([503] * 100)
        before = len(stub.asked)
        with pytest.raises(errors.Unavailable, match=r"status 503.*try again later"):
            await pull.resolve(f"{stub.address}/web:1", registries=shared)
        assert len(stub.asked) - before == shared.config.retry.attempts


@bounded(30)
async def test_an_hour_is_not_waited_for(door: Door) -> None:
    async with stubregistry.running() as stub, door() as shared:

        async def busy(_: web.Request) -> web.StreamResponse:
            return web.Response(status=429, headers={"Retry-After": "3600"})

        stub.fault = busy
        with pytest.raises(errors.Unavailable) as told:
            await pull.resolve(f"{stub.address}/web:1", registries=shared)
        assert told.value.retry_after_s == 3600
        assert len(stub.asked) == 1


@pytest.mark.parametrize("line", [b"X: " + b"y" * 60, b"y" * 4096])
@bounded(30)
async def test_endless_headers_are_refused(door: Door, line: bytes) -> None:
    """Many of them, and one without an end."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while sent < 100 << 20:
            writer.write(line + (b"\r\n" if line[:1] == b"X" else b""))
            await writer.drain()
            sent += len(line)

    async with stubregistry.raw(flood) as address, door({address: PLAIN}, retry=TWICE) as shared:
        with pytest.raises(errors.RegistryError):
            await pull.resolve(f"{address}/web:1", registries=shared)
    assert sent < 10 << 20


@bounded(30)
async def test_headers_that_come_one_by_one_end(door: Door) -> None:
    """Each is in time; all of them together are not."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)

    bounds = config.Bounds(silence_s=1, document_s=0.5)
    async with stubregistry.raw(trickle) as address, door({address: PLAIN}, retry=TWICE, bounds=bounds) as shared:
        with pytest.raises(errors.Unavailable):
            await pull.resolve(f"{address}/web:1", registries=shared)


@bounded(30)
async def test_a_registry_that_takes_no_bytes_is_given_up(store: ImageStore, door: Door, load: Load) -> None:
    load(20 << 20)

    async def deaf(request: web.Request) -> web.StreamResponse | None:
        if request.method == "PATCH":
            await asyncio.sleep(60)
        return None

    async with stubregistry.running() as stub, door(bounds=HURRIED, retry=TWICE) as shared:
        stub.fault = deaf
        with pytest.raises(errors.Unavailable, match=r"takes less than|no answer in time"):
            await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
        assert "1" not in stub.documents


@bounded(30)
async def test_what_a_registry_says_is_quoted_safely(store: ImageStore, door: Door) -> None:
    """Its words cannot move a cursor or forge a second line."""
    async with stubregistry.running() as stub, door() as shared:

        async def shout(_: web.Request) -> web.StreamResponse:
            return stubregistry.unknown("NAME_UNKNOWN", "no\x1b[2J\nsuch\u202ename" + "!" * 5000)

        stub.fault = shout
        with pytest.raises(errors.NotFound, match=r"it says: NAME_UNKNOWN: no \[2J such name!!!") as told:
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 500


@bounded(30)
async def test_a_registry_that_changes_manifests_is_found_out(store: ImageStore, door: Door, load: Load) -> None:
    load(100)
    async with stubregistry.running() as stub, door() as shared:

        async def lie(request: web.Request) -> web.StreamResponse | None:
            if request.method != "PUT" or "/manifests/" not in request.path:
                return None
            return web.Response(status=201, headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"})

        stub.fault = lie
        with pytest.raises(errors.BadAnswer, match="stored it as"):
            await push.push(store, "web", f"{stub.address}/web:1", registries=shared)


@bounded(30)
async def test_chunks_are_as_large_as_a_registry_wants(
    store: ImageStore, door: Door, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours are smaller here, so that its wish is seen."""
    image = load(9 << 20)
    monkeypatch.setattr("images.registry.upload.CHUNK_BYTES", 1 << 20)
    async with stubregistry.running() as stub, door() as shared:
        stub.least_chunk_bytes = 4 << 20
        await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
    sizes = [int(entry.headers["Content-Length"]) for entry in stub.asked if entry.method == "PATCH"]
    assert sizes[0] == 4 << 20
    assert image.layers[0].digest in stub.blobs
