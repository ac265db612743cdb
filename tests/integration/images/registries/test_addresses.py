"""Addresses that nobody can be asked at, whoever names them: each is one clear error, and never an exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp import web

from images import errors as image_errors
from images.image import Image
from images.registry import errors, pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import filled
from tests.support import stubregistry
from tests.support.aio import bounded

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]
NOWHERE = ["https://a..b/x", f"https://{'a' * 64}.example/x", "https://tök.example/x", "https://reg.example:99999/x"]


@pytest.mark.parametrize("address", NOWHERE)
@bounded(30)
async def test_a_redirect_to_nowhere(store: ImageStore, door: Door, address: str) -> None:
    async with stubregistry.running() as stub, door() as shared:
        filled(stub)

        async def lead_away(request: web.Request) -> web.StreamResponse | None:
            headers = {"Location": address}
            return web.Response(status=307, headers=headers) if "/blobs/" in request.path else None

        stub.fault = lead_away
        with pytest.raises(errors.BadAnswer, match="is no address of a server"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)


@pytest.mark.parametrize("address", NOWHERE)
@bounded(30)
async def test_a_token_service_nowhere(door: Door, address: str) -> None:
    async with stubregistry.running() as stub, door() as shared:

        async def challenge(_: web.Request) -> web.StreamResponse:
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{address}"'})

        stub.fault = challenge
        with pytest.raises(errors.Unauthorized, match="is no address of a server"):
            await pull.resolve(f"{stub.address}/web:1", registries=shared)


@pytest.mark.parametrize("address", NOWHERE)
@bounded(30)
async def test_an_upload_nowhere(store: ImageStore, door: Door, load: Load, address: str) -> None:
    load(100)
    async with stubregistry.running() as stub, door() as shared:

        async def lead_away(request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=202, headers={"Location": address}) if request.method == "POST" else None

        stub.fault = lead_away
        with pytest.raises(errors.BadAnswer, match="names no place"):
            await push.push(store, "web", f"{stub.address}/web:1", registries=shared)


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1:99999/web:1", "reg.example:99999/web:1", "[::1]:99999/web:1", "[:::]/web:1", f"{'a' * 64}.b/web:1"],
)
@bounded(30)
async def test_a_name_that_says_nowhere(door: Door, name: str) -> None:
    async with door() as shared:
        with pytest.raises(image_errors.ImageError, match=r"check the name|expected a host name"):
            await pull.resolve(name, registries=shared)


@pytest.mark.parametrize("proxy", ["nonsense", "http://a..b:3128", "http://proxy.example:99999"])
@bounded(30)
async def test_a_proxy_that_is_nowhere(door: Door, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    async with door() as shared:
        with pytest.raises(errors.Unreachable, match="HTTPS_PROXY"):
            await pull.resolve("reg.example/web:1", registries=shared)


@bounded(30)
async def test_a_date_that_is_none_is_no_reason_to_fail(door: Door) -> None:
    """A wait that a registry asks for in numbers that no clock has is not asked for."""
    left = [503]
    async with stubregistry.running() as stub, door() as shared:
        digest = filled(stub)

        async def busy(_: web.Request) -> web.StreamResponse | None:
            headers = {"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}
            return web.Response(status=left.pop(), headers=headers) if left else None

        stub.fault = busy
        assert await pull.resolve(f"{stub.address}/web:1", registries=shared) == digest
