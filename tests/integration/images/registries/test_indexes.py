"""Images for several platforms as builders make them today, with attestations beside the images."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from images import digest as digests
from images import documents, errors, manifest
from images.registry import pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import LAYER, skopeo
from tests.support import registry, stubregistry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
STATEMENT = b'{"_type": "https://in-toto.io/Statement/v0.1", "predicate": {}}'
UNKNOWN = {"platform": {"os": "unknown", "architecture": "unknown"}}


def published(stub: stubregistry.Stub) -> tuple[str, str]:
    """`web:1` on the stub: two platforms and an attestation of each kind; the digests of index and attestation."""
    entries = []
    for architecture in (manifest.host_platform().architecture, "riscv64"):
        layer = makers.archive(makers.member("f", content=architecture.encode()))
        config = documents.dump({**json.loads(makers.config_document(layer)), "architecture": architecture})
        body = _kept(stub, makers.manifest_document(config, layer), config, layer)
        platform = {"platform": {"os": "linux", "architecture": architecture}}
        entries.append(makers.descriptor(body, manifest.OCI_MANIFEST, **platform))
    attestations = [_attestation(stub, manifest.OCI_CONFIG, b"{}"), _attestation(stub, "application/x-empty", b"[]")]
    entries += [makers.descriptor(body, manifest.OCI_MANIFEST, **UNKNOWN) for body in attestations]
    index = stub.put(makers.index_document(*entries), manifest.OCI_INDEX, "1")
    return index, digests.of_bytes(attestations[0])


def _attestation(stub: stubregistry.Stub, config_type: str, config: bytes) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "config": makers.descriptor(config, config_type),
        "layers": [makers.descriptor(STATEMENT, "application/vnd.in-toto+json")],
    }
    return _kept(stub, documents.dump(value), config, STATEMENT)


def _kept(stub: stubregistry.Stub, body: bytes, *blobs: bytes) -> bytes:
    stub.blobs.update({digests.of_bytes(blob): blob for blob in blobs})
    stub.put(body, manifest.OCI_MANIFEST)
    return body


@bounded(60)
async def test_an_index_with_attestations_goes_and_comes_as_a_whole(
    store: ImageStore, door: Door, peer: registry.Server
) -> None:
    """With all platforms the same index stands at the other registry, and prune and ls take it as one image."""
    async with stubregistry.running() as stub, door() as shared:
        index, attestation = published(stub)
        image = await pull.pull(store, f"{stub.address}/web:1", registries=shared, all_platforms=True)
        assert image.platform == manifest.host_platform()
        before = {path.name for path in (store.root / "blobs/sha256").iterdir()}
        store.prune()
        assert {path.name for path in (store.root / "blobs/sha256").iterdir()} == before
        assert store.has(attestation)
        target = f"{peer.address}/copy:1"
        assert await push.push(store, f"{stub.address}/web:1", target, registries=shared) == index
        assert [one.digest for one in store.list()] == [image.digest]
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}")
    assert digests.of_bytes(raw.encode()) == index
    skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{peer.address}/copy@{attestation}")
    store.forget([f"{stub.address}/web:1"])
    assert list((store.root / "blobs/sha256").iterdir()) == []


@bounded(60)
async def test_one_platform_of_an_index_with_attestations(store: ImageStore, door: Door) -> None:
    """Nothing comes but the image of this machine; a push sends that, since the index is not whole here."""
    async with stubregistry.running() as stub, stubregistry.running() as target, door() as shared:
        _, attestation = published(stub)
        image = await pull.pull(store, f"{stub.address}/web:1", registries=shared)
        assert not store.has(attestation)
        name = f"{target.address}/web:1"
        assert await push.push(store, f"{stub.address}/web:1", name, registries=shared) == image.digest
        with pytest.raises(errors.InvalidImage, match="is not the type of"):
            await pull.pull(store, f"{stub.address}/web@{attestation}", registries=shared)


@bounded(60)
async def test_an_index_that_calls_a_layer_a_manifest_takes_nobody_s_room(store: ImageStore, door: Door) -> None:
    """Only the entry for this machine is looked at when it is pulled; the store is asked about all of it later."""
    async with stubregistry.running() as stub, door() as shared:
        config = makers.config_document(LAYER)
        body = _kept(stub, makers.manifest_document(config, LAYER), config, LAYER)
        ours = {"platform": {"os": "linux", "architecture": manifest.host_platform().architecture}}
        entries = [makers.descriptor(body, manifest.OCI_MANIFEST, **ours)]
        entries += [
            makers.descriptor(LAYER, kind, platform={"os": "linux", "architecture": "s390x"})
            for kind in (manifest.OCI_MANIFEST, manifest.OCI_INDEX)
        ]
        stub.put(makers.index_document(*entries), manifest.OCI_INDEX, "evil")
        stub.put(body, manifest.OCI_MANIFEST, "good")
        evil = await pull.pull(store, f"{stub.address}/web:evil", registries=shared)
        target = f"{stub.address}/copy:1"
        assert await push.push(store, f"{stub.address}/web:evil", target, registries=shared) == evil.digest
        await pull.pull(store, f"{stub.address}/web:good", registries=shared)
    assert len(store.stored()) == 2
    assert store.prune().blobs == 0
    store.forget([f"{stub.address}/web:good"])
    assert store.missing(evil.digest) == ()
    store.forget([f"{stub.address}/web:evil"])
    assert list((store.root / "blobs/sha256").iterdir()) == []
