"""How often and how soon one asks again, and for how long one listens: all layers of it together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from images.image import Image
from images.registry import errors, pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import HURRIED, LAYER, TWICE, filled, is_clean, path_of
from tests.support import stubregistry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]


@bounded(30)
async def test_a_busy_registry_is_asked_five_times_for_an_upload(store: ImageStore, door: Door, load: Load) -> None:
    load(100)
    async with stubregistry.running() as stub, door() as shared:

        async def busy(request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=503) if request.method == "POST" else None

        stub.fault = busy
        with pytest.raises(errors.Unavailable, match="status 503"):
            await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
        ends = shared.config.retry.attempts
        posts = [line for line in stub.lines() if line.startswith("POST")]
        # Config and layer go at the same time; the first that gives up ends the other.
        assert ends <= len(posts) <= 2 * ends


@bounded(30)
async def test_a_registry_that_loses_uploads_and_is_busy_is_asked_five_times(
    store: ImageStore, door: Door, load: Load
) -> None:
    """Every upload is cut and then unknown, and whether the blob is there is not told either."""
    load(100)
    async with stubregistry.running() as stub, door() as shared:
        asked = 0

        async def lose(request: web.Request) -> web.StreamResponse | None:
            nonlocal asked
            if request.method == "PUT":
                return web.Response(status=503)
            if request.method == "GET":
                return web.Response(status=404)
            if request.method == "HEAD" and any(line.startswith("PUT") for line in stub.lines()):
                asked += 1
                return web.Response(status=503)
            return None

        stub.fault = path_of("/blobs/", answer=lose)
        with pytest.raises(errors.Unavailable, match="status 503"):
            await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
        assert 0 < asked <= 3 * shared.config.retry.attempts


def challenged(stub: stubregistry.Stub, answer: Callable[[], web.Response]) -> None:
    """The registry wants a token of its own service, which answers so."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/token":
            return answer()
        if "Authorization" in request.headers:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{stub.url}/token"'})

    stub.fault = fault


@bounded(30)
async def test_a_busy_token_service_is_asked_five_times(door: Door) -> None:
    async with stubregistry.running() as stub, door() as shared:
        filled(stub)
        challenged(stub, lambda: web.Response(status=503))
        with pytest.raises(errors.Unavailable, match=r"token service.*status 503"):
            await pull.resolve(f"{stub.address}/web:1", registries=shared)
        assert len([line for line in stub.lines() if "/token" in line]) == shared.config.retry.attempts


@bounded(30)
async def test_a_token_service_is_asked_no_sooner_than_it_wishes(door: Door) -> None:
    """Longer than an exchange may take, and by all who wait for a token."""
    async with stubregistry.running() as stub, door(bounds=HURRIED) as shared:
        digest = filled(stub)
        clock = asyncio.get_running_loop()
        asked_at_s: list[float] = []

        def answer() -> web.Response:
            asked_at_s.append(clock.time())
            if len(asked_at_s) == 1:
                return web.Response(status=429, headers={"Retry-After": "3"})
            return web.json_response({"token": "abc"})

        challenged(stub, answer)
        asking = [pull.resolve(f"{stub.address}/web:1", registries=shared) for _ in range(4)]
        assert set(await asyncio.gather(*asking)) == {digest}
        assert [at - asked_at_s[0] >= 3 for at in asked_at_s] == [False, True]


@pytest.mark.parametrize("status", [404, 503])
@bounded(30)
async def test_a_refusal_that_never_ends_is_given_up(store: ImageStore, door: Door, status: int) -> None:
    """The words behind a status come byte by byte."""

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=status)
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.05)

    async with stubregistry.running() as stub, door(bounds=HURRIED, retry=TWICE) as shared:
        filled(stub)
        stub.fault = path_of("/blobs/", answer=trickle)
        with pytest.raises(errors.Unavailable, match="not done after 2 s"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert is_clean(store)


@bounded(30)
async def test_what_comes_again_must_not_trickle_for_ever(store: ImageStore, door: Door) -> None:
    """A registry without Range, after a cut: what is passed over counts as slow as anything."""
    cut: set[str] = set()

    async def trickle_again(request: web.Request) -> web.StreamResponse:
        data = stub.blobs[request.path.rpartition("/")[2]]
        answer = web.StreamResponse()
        answer.content_length = len(data)
        await answer.prepare(request)
        if request.path not in cut:
            cut.add(request.path)
            await answer.write(data[:-1])
            assert request.transport is not None
            request.transport.close()
            return answer
        for number in range(len(data)):
            await answer.write(data[number : number + 1])
            await asyncio.sleep(0.05)
        return answer

    async with stubregistry.running() as stub, door(bounds=HURRIED, retry=TWICE) as shared:
        filled(stub, LAYER)
        stub.fault = path_of(makers.descriptor(LAYER, "")["digest"], answer=trickle_again)
        with pytest.raises(errors.Unavailable, match="slower than"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert is_clean(store)


@bounded(30)
async def test_a_registry_may_take_its_time_to_put_an_upload_together(
    store: ImageStore, door: Door, load: Load
) -> None:
    """All bytes are on their way: silence is no reason to send them again."""
    load(100)
    async with stubregistry.running() as stub, door(bounds=HURRIED, retry=TWICE) as shared:

        async def compose(request: web.Request) -> web.StreamResponse | None:
            if request.method == "PUT" and "/blobs/" in request.path:
                await asyncio.sleep(2 * (HURRIED.silence_s + HURRIED.slow_s))
            return None

        stub.fault = compose
        await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
        assert len([line for line in stub.lines() if line.startswith("PUT") and "/blobs/" in line]) == 2
