"""The tar reader: reads what the common tools write, and believes nothing that an archive says about itself."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import errors
from images.tarstream import Entry, Kind, TarReader
from tests.unit.images import makers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read(data: bytes, *, max_entries: int = 1000) -> list[tuple[Entry, bytes]]:
    """Every entry with its content, holes filled."""
    found = []
    for entry, reader in _entries(data, max_entries):
        content = bytearray(entry.size_bytes)
        for offset, piece in reader.segments():
            content[offset : offset + len(piece)] = piece
        found.append((entry, bytes(content)))
    return found


def _entries(data: bytes, max_entries: int) -> Iterator[tuple[Entry, TarReader]]:
    reader = TarReader(makers.Pipe(data), what="layer x", max_entries=max_entries)
    return ((entry, reader) for entry in reader)


def test_every_kind_of_entry_comes_out_with_its_fields() -> None:
    data = makers.archive(
        makers.directory("d/", uid=5, gid=6, mtime=7),
        makers.member("d/f", content=b"hello", mode=0o4755, uid=1000, gid=3_000_000, mtime=1.5),
        makers.symlink("d/l", "../outside"),
        makers.hardlink("d/h", "./d//f"),
        makers.device("d/c", 1, 3),
        makers.device("d/b", 8, 0, tarfile.BLKTYPE),
        makers.member("d/p", tarfile.FIFOTYPE),
    )
    assert read(data) == [
        (Entry(name="d", kind=Kind.DIRECTORY, mode=0o755, uid=5, gid=6, mtime_ns=7_000_000_000), b""),
        (
            Entry(
                name="d/f", kind=Kind.FILE, mode=0o4755, uid=1000, gid=3_000_000, mtime_ns=1_500_000_000, size_bytes=5
            ),
            b"hello",
        ),
        (Entry(name="d/l", kind=Kind.SYMLINK, link="../outside"), b""),
        (Entry(name="d/h", kind=Kind.HARDLINK, link="d/f"), b""),
        (Entry(name="d/c", kind=Kind.CHARACTER_DEVICE, device=(1, 3)), b""),
        (Entry(name="d/b", kind=Kind.BLOCK_DEVICE, device=(8, 0)), b""),
        (Entry(name="d/p", kind=Kind.FIFO), b""),
    ]


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 155, 250])
def test_long_names_of_every_format_are_whole(format_: int, length: int) -> None:
    name = "a" * (length * 3 // 5) + "/" + "b" * (length - length * 3 // 5 - 1)
    info = tarfile.TarInfo(name)
    assert read(info.tobuf(format_) + bytes(1024))[0][0].name == name


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    (entry, _), *_ = read(makers.archive(makers.member("caf\udce9")))
    assert entry.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_extended_attributes_and_fine_times_come_from_pax_headers() -> None:
    pax = {"SCHILY.xattr.user.colour": "blue", "mtime": "-1.25", "uid": "4000000000"}
    (entry, _), *_ = read(makers.archive(makers.member("f", pax_headers=pax)))
    assert entry.xattrs == {"user.colour": b"blue"}
    assert (entry.mtime_ns, entry.uid) == (-1_250_000_000, 4_000_000_000)


def test_a_global_header_holds_for_all_that_follow_and_an_entry_overrides_it() -> None:
    """`git archive` writes one with a comment; that is passed by."""
    start = makers.member("g", tarfile.XGLTYPE, content=b"10 uid=77\n" + b"20 comment=whatever\n")
    found = read(makers.archive(start, makers.member("a"), makers.member("b", pax_headers={"uid": "5"})))
    assert [(entry.name, entry.uid) for entry, _ in found] == [("a", 77), ("b", 5)]


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))],
)
def test_sparse_files_of_all_four_formats_are_whole(tmp_path: Path, options: list[str]) -> None:
    """Thirty pieces: more than any header holds, so that continuation blocks are read as well."""
    content = bytearray(4 << 20)
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(30):
            file.seek(number * 131072)
            file.write(b"%d" % number * 100)
            content[number * 131072 : number * 131072 + len(b"%d" % number * 100)] = b"%d" % number * 100
        file.truncate(4 << 20)
    (tmp_path / "after").write_bytes(b"after")
    command = ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", "-", "sparse", "after"]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(packed) < 2 << 20, "the file was packed with its holes"
    assert [(entry.name, data) for entry, data in read(packed)] == [("sparse", bytes(content)), ("after", b"after")]


def _bad_checksum() -> bytes:
    block = bytearray(makers.member("f"))
    block[0] ^= 1
    return bytes(block)


def _size(text: bytes) -> bytes:
    return makers.rewritten(makers.member("f"), 124, text.ljust(12, b"\0"))


def _pax(records: bytes) -> bytes:
    return makers.member("x", tarfile.XHDTYPE, content=records) + makers.member("f")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (makers.archive(makers.member("../f")), "entry '../f': its path holds '..'"),
        (makers.archive(makers.member("a/../../f")), "holds '..'"),
        (makers.archive(makers.member("/etc/passwd")), "entry '/etc/passwd': its path is absolute"),
        (makers.archive(makers.member("a\nb")), "control character"),
        (makers.archive(makers.member("a\x7fb")), "control character"),
        (makers.archive(makers.member("f", pax_headers={"path": "a\0b"})), "control character"),
        (makers.archive(makers.member("a/" * 257 + "f")), "deeper than 256"),
        (makers.archive(makers.member("a" * 256)), "longer than 255 bytes"),
        (makers.archive(makers.member("ab/" * 1400)), "longer than 4095 bytes"),
        (makers.archive(makers.hardlink("h", "../../etc/shadow")), "entry 'h': its path holds '..'"),
        (makers.archive(makers.hardlink("h", "/etc/shadow")), "absolute"),
        (makers.archive(makers.symlink("l", "")), "link target is empty"),
        (makers.archive(makers.member("f", uid=-1)), "uid: b'-1' is not a number"),
        (makers.archive(makers.member("f", uid=0xFFFFFFFF)), "uid 4294967295"),
        (makers.archive(makers.member("f", pax_headers={"uid": "1e3"})), "uid: "),
        (makers.archive(makers.member("f", pax_headers={"mtime": "now"})), "mtime: "),
        (makers.archive(makers.rewritten(makers.member("f"), 156, b"M")), "type b'M'"),
        (makers.archive(makers.device("c", 1, 1 << 20)), "device 1:1048576 is out of range"),
        (_bad_checksum(), "not a tar header"),
        (b"this is no tar" * 100, "not a tar header"),
        (_size(b"abc"), "size: "),
        (_size(b"\xff" * 12), "size: negative"),
        (_size(b"\xbf" + b"\xff" * 11), "size: out of range"),
        (_size(b"00000001000"), "cut off at byte 512"),
        (makers.member("f", content=b"x" * 600)[:900], "cut off"),
        (makers.member("f")[:300], "cut off"),
        (_pax(b"5 a=\n"[:3]), "record at byte 0 is malformed"),
        (_pax(b"99 path=x\n"), "malformed"),
        (_pax(b"0 path=x\n"), "malformed"),
        (_pax(b"6 abc\n"), "not KEY=VALUE"),
        (_pax(b"11 size=-1\n"), "size: "),
        (makers.member("x", tarfile.XHDTYPE, content=b"9 path=x\n") + bytes(1024), "ends after its extended header"),
        (makers.member("x", tarfile.XHDTYPE, content=b"x" * (1 << 20) + b"y"), "larger than 1 MiB"),
        (makers.member("x", tarfile.XGLTYPE, content=b"9 path=x\n"), "global header sets 'path'"),
        (makers.member("x", tarfile.XHDTYPE, content=b"9 path=x\n") * 20, "too many extended headers"),
        (makers.archive(*[makers.member(f"f{number}") for number in range(1001)]), "more than 1000 entries"),
    ],
)
def test_a_hostile_or_damaged_archive_is_refused_with_the_place(data: bytes, complaint: str) -> None:
    with pytest.raises(errors.InvalidImage) as caught:
        read(data)
    assert str(caught.value).startswith("layer x: ")
    assert complaint in str(caught.value)
    assert str(caught.value).isprintable(), "a hostile name must not reach the terminal raw"


@pytest.mark.parametrize(
    ("pax", "complaint"),
    [
        ({"GNU.sparse.map": "0,5,3,5", "GNU.sparse.size": "20"}, "overlap"),
        ({"GNU.sparse.map": "0,5,30,5", "GNU.sparse.size": "20"}, "ends after the file"),
        ({"GNU.sparse.map": "0,3", "GNU.sparse.size": "20"}, "does not fit its content"),
        ({"GNU.sparse.map": "0,5,1", "GNU.sparse.size": "20"}, "odd number"),
        ({"GNU.sparse.map": "x,5", "GNU.sparse.size": "20"}, "not a number"),
        ({"GNU.sparse.map": ",".join(["0,0"] * 100_001), "GNU.sparse.size": "20"}, "more than 100000 pieces"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, "not a number"),
    ],
)
def test_a_sparse_map_that_lies_is_refused(pax: dict[str, str], complaint: str) -> None:
    with pytest.raises(errors.InvalidImage, match=complaint):
        read(makers.archive(makers.member("f", content=b"x\n345", pax_headers=pax)))


def test_an_empty_stream_and_one_without_an_end_mark_are_told_apart_from_whole_ones() -> None:
    for data, ended in ((b"", False), (makers.member("f"), False), (makers.archive(), True)):
        reader = TarReader(io.BytesIO(data), what="x", max_entries=10)
        list(reader)
        assert reader.ended is ended


_NAMES = st.from_regex(r"[a-zé\\ ]{1,40}(/[a-z]{1,90}){0,3}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(_NAMES, st.binary(max_size=1500), max_size=8),
    format_=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mtime=st.integers(min_value=0, max_value=2**33),
    uid=st.integers(min_value=0, max_value=2**32 - 2),
)
def test_what_the_standard_library_writes_we_read(files: dict[str, bytes], format_: int, mtime: int, uid: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format_) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(content), mtime, uid
            tar.addfile(info, io.BytesIO(content))
    found = read(packed.getvalue())
    assert {entry.name: content for entry, content in found} == files
    assert all((entry.mtime_ns, entry.uid) == (mtime * 1_000_000_000, uid) for entry, _ in found)


_SEEDS = makers.archive(
    makers.directory("d"),
    makers.member("d/" + "n" * 120, content=b"x" * 700, pax_headers={"SCHILY.xattr.user.a": "b"}),
    makers.hardlink("h", "d"),
)


@settings(max_examples=400, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(_SEEDS) - 1), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 4000),
)
def test_a_damaged_archive_is_read_or_refused_but_never_trips_us(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(_SEEDS)
    for position, value in changes:
        data[position] = value
    try:
        found = read(bytes(data[: len(data) - cut]))
    except errors.ImageError:
        return
    assert all(".." not in entry.name.split("/") and not entry.name.startswith("/") for entry, _ in found)


def test_checksums_of_signed_bytes_are_taken_too() -> None:
    """Some archives of the eighties summed bytes as their machine's `char` did."""
    block = makers.member("caf\udce9")
    name = b"caf\xe9"
    plain = makers.rewritten(block[-512:] if len(block) > 512 else block, 0, name.ljust(100, b"\0"))
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain[:148] + b"        " + plain[156:])
    old = plain[:148] + b"%06o\0 " % signed + plain[156:]
    assert [entry.name for entry, _ in read(old + bytes(1024))] == ["caf\udce9"]
