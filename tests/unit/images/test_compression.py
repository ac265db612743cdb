"""What is compressed comes out whole, in bounded pieces, or is refused; what was cut off is never taken for whole."""

import gzip
import io
import os
import random
import subprocess
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from images import compression, errors, zstd

TEXT = b"".join(random.Random(7).choices([b"alpha ", b"beta ", b"gamma\n"], k=60_000))


def read(data: bytes, *, piece: int = 70_000) -> bytes:
    source = compression.reader(io.BytesIO(data), what="layer")
    pieces = []
    while part := source.read(piece):
        assert len(part) <= piece
        pieces.append(part)
    return b"".join(pieces)


def squeeze(data: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "options", [[], ["-19"], ["--ultra", "-22"], ["--no-check"], ["--fast=5"], ["-T2"], ["--long=27"]]
)
def test_what_the_zstd_tool_writes_is_read(options: list[str]) -> None:
    assert read(squeeze(TEXT, *options)) == TEXT


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(5_000_000), os.urandom(300_000)], ids=["none", "one", "zeros", "noise"]
)
def test_a_frame_that_knows_its_size_and_one_that_does_not_are_read(data: bytes) -> None:
    for writer in (zstandard.ZstdCompressor(), zstandard.ZstdCompressor(write_content_size=False, write_checksum=True)):
        assert read(writer.compress(data)) == data


def test_several_frames_are_one_stream_and_what_may_be_skipped_is() -> None:
    """Tools put an index of a layer's files into frames that a reader passes by."""
    skippable = (0x184D2A5E).to_bytes(4, "little") + (9).to_bytes(4, "little") + b"an index."
    assert read(squeeze(b"one") + skippable + squeeze(b"two") + skippable) == b"onetwo"


@pytest.mark.parametrize("cut", [5, 6, 9, 20, 5000, -1, -3, -4, -5])
@pytest.mark.parametrize("form", ["zstd", "gzip"])
def test_a_stream_that_was_cut_off_is_refused_wherever_it_ends(cut: int, form: str) -> None:
    whole = squeeze(TEXT) if form == "zstd" else gzip.compress(TEXT)
    with pytest.raises(errors.InvalidImage, match=rf"layer: the {form} stream was cut off"):
        read(whole[:cut])


def test_a_second_frame_that_was_cut_off_is_noticed() -> None:
    with pytest.raises(errors.InvalidImage, match="cut off"):
        read(squeeze(b"one") + squeeze(TEXT)[:-200])


def test_what_follows_the_last_frame_is_no_frame() -> None:
    with pytest.raises(errors.InvalidImage, match="what follows its first zstd frame is none"):
        read(squeeze(TEXT) + b"more" * 20)


@pytest.mark.parametrize("options", [["--long=28"], ["--long=31"]])
def test_a_window_that_would_take_much_memory_is_refused_with_the_remedy(options: list[str]) -> None:
    with pytest.raises(errors.LimitExceeded, match=r"zstd window has \d+ MiB, the bound is 128; .* without --long"):
        read(squeeze(TEXT, *options))


def test_a_size_announced_without_end_takes_no_memory() -> None:
    """A single segment's window is as large as the content that it announces."""
    frame = (0xFD2FB528).to_bytes(4, "little") + bytes([0xE0]) + (1 << 50).to_bytes(8, "little") + bytes(100)
    with pytest.raises(errors.LimitExceeded, match="without --long"):
        read(frame)


def test_memory_does_not_grow_with_a_bomb() -> None:
    bomb = squeeze(bytes(256 << 20))
    assert len(bomb) < 64 << 10
    source = compression.reader(io.BytesIO(bomb), what="layer")
    tracemalloc.start()
    try:
        size = sum(len(part) for part in iter(lambda: source.read(1 << 20), b""))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 256 << 20
    assert peak < 8 << 20


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=3000), pieces=st.lists(st.integers(1, 400), max_size=30), level=st.integers(1, 19))
def test_frames_end_where_the_library_says(data: bytes, pieces: list[int], level: int) -> None:
    """However the stream comes in: whole at the end, and at no place before it but between frames."""
    frame = zstandard.ZstdCompressor(level=level, write_checksum=bool(len(data) % 2)).compress(data)
    frames = zstd.Frames(what="layer")
    rest = frame + frame
    fed = 0
    for size in pieces:
        frames.feed(rest[fed : fed + size])
        fed = min(fed + size, len(rest))
        assert frames.whole == (fed in {0, len(frame), len(rest)})
    frames.feed(rest[fed:])
    assert frames.whole


@settings(max_examples=500, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(5, 500),
)
def test_a_damaged_stream_is_read_or_refused_but_never_trips_us(changes: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(squeezed := zstandard.ZstdCompressor(write_checksum=True).compress(TEXT[:2000]))
    for place, value in changes:
        damaged[place % len(squeezed)] = value
    try:
        found = read(bytes(damaged[:cut]))
    except errors.ImageError as error:
        assert str(error).startswith("layer: ")  # noqa: PT017 - either outcome is right
    else:
        assert found == TEXT[:2000] or not bytes(damaged).startswith(b"\x28\xb5\x2f\xfd")
