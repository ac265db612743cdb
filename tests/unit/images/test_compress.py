"""Layers compressed another way: the same content and config, on all processors, with the same bytes each time."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import archive, compress, compression, documents, errors, manifest, recompress
from images import digest as digests
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from pathlib import Path

LAYER = makers.archive(makers.member("big", content=os.urandom(1000) * 3000), makers.member("small"))


def packed(data: bytes, kind: compress.Kind) -> bytes:
    sink = io.BytesIO()
    compress.copy(io.BytesIO(data), sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000])
@pytest.mark.parametrize(("kind", "tool"), [("gzip", "gzip"), ("zstd", "zstd")])
def test_the_tools_and_we_read_what_we_write(size: int, kind: compress.Kind, tool: str) -> None:
    data = (os.urandom(40_000) * 200)[:size]
    made = packed(data, kind)
    assert subprocess.run([tool, "-dc"], input=made, capture_output=True, check=True).stdout == data
    source = compression.reader(io.BytesIO(made), what="x")
    assert b"".join(iter(lambda: source.read(1 << 20), b"")) == data
    assert packed(data, kind) == made, "the same content has the same bytes"


def test_pieces_share_what_came_before() -> None:
    """Without a dictionary each piece would begin from nothing; one stream is at most a little smaller."""
    data = (os.urandom(30_000) * 400)[: 10 << 20]
    assert len(packed(data, "gzip")) < 1.05 * len(gzip.compress(data, 6))


@settings(max_examples=50, deadline=None)
@given(pieces=st.lists(st.binary(max_size=400_000), max_size=12))
def test_however_the_pieces_come_the_member_is_whole(pieces: list[bytes]) -> None:
    sink = io.BytesIO()
    with compress.GzipWriter(sink) as writer:
        for piece in pieces:
            writer.write(piece)
    assert gzip.decompress(sink.getvalue()) == b"".join(pieces)


def test_a_sink_that_fails_ends_the_work() -> None:
    class Full(io.RawIOBase):
        def write(self, data: object) -> int:  # noqa: ARG002 - a disk does not look
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        compress.copy(io.BytesIO(LAYER * 4), Full(), "gzip")


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_an_image_keeps_its_config_and_diff_ids(tmp_path: Path, kind: compress.Kind) -> None:
    store = ImageStore(tmp_path)
    made = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(LAYER))), name="web")
    found = recompress.convert(store, made, kind)
    assert found.config_digest == made.config_digest
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in made.layers]
    assert found.layers[0].media_type.endswith(f"+{kind}")
    assert found.size_bytes < made.size_bytes / 2
    assert recompress.convert(store, found, kind) == found
    back = recompress.convert(store, found, "none")
    assert back.digest == made.digest
    assert store.resolve("web").digest == made.digest, "names stay where they are"


def test_layers_of_docker_s_types_become_neighbours_of_oci_s(tmp_path: Path) -> None:
    """One is compressed already and the other is not: the manifest that comes out knows one family of types."""
    store = ImageStore(tmp_path)
    packed, plain = gzip.compress(LAYER), makers.archive(makers.member("g"))
    config = makers.config_document(LAYER, plain)
    types = (f"{manifest.DOCKER_LAYER}.gzip", manifest.DOCKER_LAYER)
    value = {
        "schemaVersion": 2,
        "mediaType": manifest.DOCKER_MANIFEST,
        "config": makers.descriptor(config, manifest.DOCKER_CONFIG),
        "layers": [makers.descriptor(data, kind) for data, kind in zip((packed, plain), types, strict=True)],
    }
    for data in (packed, plain, config):
        store.put_bytes(data)
    made = store.tag("web", store.put_bytes(documents.dump(value)))
    found = recompress.convert(store, made, "gzip")
    assert {layer.media_type for layer in found.layers} == {f"{manifest.OCI_LAYER}+gzip"}
    assert recompress.convert(store, found, "gzip") == found


def test_a_layer_that_lies_is_not_compressed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    made = makers.compressed_image(store, gzip.compress(LAYER), digests.of_bytes(b"other"))
    with pytest.raises(errors.DigestMismatch, match="the image's config says"):
        recompress.convert(store, made, "zstd")
    assert list(store.tmp.iterdir()) == []
