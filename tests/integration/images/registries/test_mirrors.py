"""Mirrors that have everything, lie or are busy: the order of the configuration holds, and only liars are left out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from images import errors as image_errors
from images import manifest
from images.registry import config, pull, registries
from images.store import ImageStore
from tests.integration.images.registries.support import filled, path_of
from tests.support import stubregistry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
LAYERS = [makers.archive(makers.member("f", content=text * 9000)) for text in (b"one", b"two", b"three", b"four")]


@contextlib.asynccontextmanager
async def places(count: int) -> AsyncIterator[tuple[list[stubregistry.Stub], dict[str, config.Registry]]]:
    """So many mirrors and then the registry itself, all with the same image; and the configuration that says so."""
    async with contextlib.AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(stubregistry.running()) for _ in range(count + 1)]
        for stub in stubs:
            filled(stub, *LAYERS)
        mirrors = tuple(config.Mirror(host=stub.address) for stub in stubs[:-1])
        yield stubs, {stubs[-1].address: config.Registry(mirrors=mirrors)}


def blobs_asked(stub: stubregistry.Stub) -> list[str]:
    return [line for line in stub.lines() if "/blobs/" in line]


@bounded(60)
async def test_a_mirror_that_has_everything_is_the_only_one_asked(store: ImageStore, door: Door) -> None:
    """One blob after the other, so that each could go elsewhere."""
    async with places(2) as (stubs, hosts), door(hosts, limits=config.Limits(downloads=1)) as shared:
        await pull.pull(store, f"{stubs[-1].address}/web:1", registries=shared)
        assert len(blobs_asked(stubs[0])) == len(LAYERS) + 1
        assert [line for stub in stubs[1:] for line in stub.lines()] == []


@bounded(60)
async def test_a_liar_never_costs_the_registry_its_place(store: ImageStore, door: Door) -> None:
    """The registry is cut first, so the mirror sends the end of the blob, and the digest is wrong: whose fault?"""
    async with places(1) as (stubs, hosts), door(hosts, limits=config.Limits(downloads=1)) as shared:
        liar, home = stubs
        cut = False

        async def lie(request: web.Request) -> web.StreamResponse | None:
            digest = request.path.rpartition("/")[2]
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
            if start == 0:  # hand the beginning to the registry
                return web.Response(status=503)
            body = bytes(len(home.blobs[digest]) - start)
            headers = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{start + len(body)}"}
            return web.Response(status=206, body=body, headers=headers)

        async def cut_once(request: web.Request) -> web.StreamResponse | None:
            nonlocal cut
            data = home.blobs[request.path.rpartition("/")[2]]
            if cut or len(data) < 1000 or len(blobs_asked(home)) < 3:  # by then it is the one that is asked first
                return None
            cut = True
            answer = web.StreamResponse()
            answer.content_length = len(data)
            await answer.prepare(request)
            await answer.write(data[: len(data) // 2])
            assert request.transport is not None
            request.transport.close()
            return answer

        liar.fault, home.fault = path_of("/blobs/", answer=lie), path_of("/blobs/", answer=cut_once)
        pulled = await pull.pull(store, f"{home.address}/web:1", registries=shared)
        assert cut
    for layer in pulled.layers:
        store.check_blob(layer.digest)


@bounded(60)
async def test_when_all_lie_nothing_is_kept(store: ImageStore, door: Door) -> None:
    """Everybody is asked for it once, and then it is told."""
    async with places(2) as (stubs, hosts), door(hosts, limits=config.Limits(downloads=1)) as shared:
        digest = makers.descriptor(LAYERS[0], "")["digest"]
        for stub in stubs:
            stub.blobs[digest] = bytes(len(LAYERS[0]))
        with pytest.raises(image_errors.DigestMismatch):
            await pull.pull(store, f"{stubs[-1].address}/web:1", registries=shared)
        assert [len([line for line in blobs_asked(stub) if digest in line]) for stub in stubs] == [1, 1, 1]
        assert not store.has(digest)


@bounded(60)
async def test_a_mirror_whose_token_service_is_busy_is_asked_once(door: Door) -> None:
    async with places(1) as (stubs, hosts), door(hosts) as shared:
        mirror, home = stubs

        async def challenge(request: web.Request) -> web.StreamResponse | None:
            if request.path == "/token":
                return web.Response(status=503)
            realm = f'Bearer realm="{mirror.url}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})

        mirror.fault = challenge
        await pull.resolve(f"{home.address}/web:1", registries=shared)
        assert len([line for line in mirror.lines() if "/token" in line]) == 1


@pytest.mark.parametrize("body", [b'{"schemaVersion": 2, "conf', b'{"schemaVersion": 2, "mediaType": "text/plain"}'])
@bounded(60)
async def test_a_mirror_with_a_broken_manifest_is_passed_by(store: ImageStore, door: Door, body: bytes) -> None:
    async with places(1) as (stubs, hosts), door(hosts) as shared:
        mirror, home = stubs
        mirror.put(body, manifest.OCI_MANIFEST, "1")
        assert await pull.pull(store, f"{home.address}/web:1", registries=shared)


@bounded(60)
async def test_a_mirror_that_calls_a_manifest_something_else_is_passed_by(store: ImageStore, door: Door) -> None:
    """The bytes are right, and the type is not the one that the index says."""
    async with places(1) as (stubs, hosts), door(hosts) as shared:
        body = stubs[-1].documents["1"][1]
        platform = {"platform": {"architecture": manifest.host_platform().architecture}}
        bare = body.replace(b'"mediaType": "%b", ' % manifest.OCI_MANIFEST.encode(), b"", 1)
        assert bare != body
        for stub, kind in zip(stubs, (manifest.DOCKER_MANIFEST, manifest.OCI_MANIFEST), strict=True):
            stub.put(bare, kind)
            stub.put(
                makers.index_document(makers.descriptor(bare, manifest.OCI_MANIFEST, **platform)),
                manifest.OCI_INDEX,
                "2",
            )
        assert await pull.pull(store, f"{stubs[-1].address}/web:2", registries=shared)
