"""Registries that lie about manifests: each lie is one clear error, and nothing of it stays in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from images import errors as image_errors
from images import manifest
from images.image import Image
from images.registry import errors, pull, registries
from images.store import ImageStore
from tests.integration.images.registries.support import LAYER, filled, is_clean
from tests.support import stubregistry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]


@pytest.mark.parametrize("announced", [True, False])
@bounded(30)
async def test_a_manifest_of_100_megabytes_is_not_read(store: ImageStore, door: Door, announced: bool) -> None:
    sent = 0
    async with stubregistry.running() as stub, door() as shared:

        async def flood(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            answer = web.StreamResponse(headers={"Content-Type": manifest.OCI_MANIFEST})
            if announced:
                answer.content_length = 100 << 20
            await answer.prepare(request)
            for _ in range(100):
                await answer.write(b" " * (1 << 20))
                sent += 1
            return answer

        stub.fault = flood
        with pytest.raises(errors.BadAnswer, match="bytes"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert sent < 20
    assert is_clean(store)


@pytest.mark.parametrize(
    ("media_type", "body", "reason"),
    [
        ("text/html", {}, "is no image's"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {}, "schema 1"),
        (manifest.OCI_INDEX, {}, "announced as"),
        (manifest.DOCKER_MANIFEST, {}, "announced as"),
        (manifest.OCI_MANIFEST, {"manifests": []}, "both a manifest and an index"),
        (manifest.OCI_MANIFEST, {"schemaVersion": 1}, "only version 2"),
        (manifest.OCI_MANIFEST, {"layers": [{"urls": ["http://evil.example/"]}]}, "refused"),
        (manifest.OCI_MANIFEST, {"layers": [{"digest": "sha256:../../etc"}]}, "64 lower-case hex"),
    ],
)
@bounded(30)
async def test_a_document_that_means_two_things_is_refused(
    store: ImageStore, door: Door, media_type: str, body: dict[str, Any], reason: str
) -> None:
    """CVE-2021-41190 and its relatives."""
    async with stubregistry.running() as stub, door() as shared:
        layers = [makers.descriptor(LAYER, manifest.OCI_LAYER) | layer for layer in body.get("layers", [])]
        filled(stub, **(body | ({"layers": layers} if layers else {})))
        data = stub.documents["1"][1]
        stub.put(data, media_type, "1")
        with pytest.raises(image_errors.InvalidImage, match=reason):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert is_clean(store)


@bounded(30)
async def test_other_bytes_than_were_named_are_refused(store: ImageStore, door: Door) -> None:
    """By a pinned digest, by the header, and by an index."""
    async with stubregistry.running() as stub, door() as shared:
        digest = filled(stub)
        media_type, data = stub.documents[digest]
        stub.documents[digest] = (media_type, data + b" ")
        with pytest.raises(errors.BadAnswer, match="its bytes have digest"):
            await pull.pull(store, f"{stub.address}/web@{digest}", registries=shared)

        async def lie(_: web.Request) -> web.StreamResponse:
            headers = {"Content-Type": media_type, "Docker-Content-Digest": f"sha256:{'0' * 64}"}
            return web.Response(body=data, headers=headers)

        stub.fault = lie
        with pytest.raises(errors.BadAnswer, match="its bytes have digest"):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert is_clean(store)


@bounded(30)
async def test_a_head_without_a_digest_is_followed_by_a_get(door: Door) -> None:
    async with stubregistry.running() as stub, door() as shared:
        digest = filled(stub)

        async def silent(request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=405) if request.method == "HEAD" else None

        stub.fault = silent
        assert await pull.resolve(f"{stub.address}/web:1", registries=shared) == digest


@pytest.mark.parametrize("all_platforms", [True, False])
@bounded(30)
async def test_an_index_without_an_image_for_this_machine_is_told_before_anything_is_fetched(
    store: ImageStore,
    door: Door,
    all_platforms: bool,
) -> None:
    """Nothing in it, or another machine's."""
    async with stubregistry.running() as stub, door() as shared:
        filled(stub)
        body = stub.documents["1"][1]
        other = {"platform": {"os": "linux", "architecture": "s390x"}}
        stub.put(makers.index_document(), manifest.OCI_INDEX, "empty")
        stub.put(
            makers.index_document(makers.descriptor(body, manifest.OCI_MANIFEST, **other)), manifest.OCI_INDEX, "s"
        )
        for tag, offer in (("empty", "offers nothing"), ("s", "offers linux/s390x")):
            with pytest.raises(image_errors.NotFound, match=offer):
                await pull.pull(store, f"{stub.address}/web:{tag}", registries=shared, all_platforms=all_platforms)
        assert not [line for line in stub.lines() if "/blobs/" in line]
    assert is_clean(store)
