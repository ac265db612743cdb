"""Damaged and hostile archives by the thousand: honest ones, changed at random from a seed, and all that reads them.

The promise under test: whatever the bytes, an archive is read or refused with an `ImageError` of one printable line
that names it; no name that comes out leads outside; and no more comes out than a bound allows. `check` raises
`AssertionError` with what came out wrong, and `case` makes the bytes of a number again.
"""

from __future__ import annotations

import gzip
import io
import random

import zstandard

from images import compression, documents, errors, image, manifest, members, tree
from images.image import Image, Layer
from images.tarstream import Kind, TarReader
from tests.unit.images import makers

LIMITS = compression.Limits(max_bytes=1 << 20, max_entries=200)
_LAYERS = (
    makers.archive(
        makers.directory("d", mode=0o700),
        makers.member("d/file", content=b"content" * 100, mtime=1_600_000_000, pax_headers={"mtime": "1.5"}),
        makers.hardlink("d/hard", "d/file"),
        makers.symlink("link", "d/file"),
        makers.device("null", 1, 3),
        makers.member("n" * 150),
    ),
    makers.archive(makers.member("d/.wh.file"), makers.member("d/.wh..wh..opq"), makers.member("d/new", content=b"x")),
    makers.archive(
        makers.member(
            "GNUSparseFile.0/hole",
            content=b"1\n100\n5\n".ljust(512, b"\0") + b"data!",
            pax_headers={
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "hole",
                "GNU.sparse.realsize": "5000",
                "SCHILY.xattr.user.a": "b",
            },
        )
    ),
)
_DOCUMENTS = (
    makers.config_document(_LAYERS[0], Cmd=["sh"], Env=["A=b"], ExposedPorts={"80/tcp": {}}, Labels={"a": "b"}),
    makers.manifest_document(makers.config_document(_LAYERS[0]), *_LAYERS),
    makers.index_document(makers.descriptor(b"x", manifest.OCI_MANIFEST, platform={"architecture": "amd64"})),
)
_ARCHIVES = (makers.files(makers.docker_archive(*_LAYERS[:2])), makers.files(makers.oci_layout(_LAYERS[0])))
_POISON = (
    b"../",
    b"/",
    b"\0",
    b"\n",
    b"\xff",
    b"..",
    b".wh.",
    b"9" * 20,
    b"-1",
    b"{",
    b"[",
    b'"',
    b"\x80" * 12,
    b"ustar",
)


def case(seed: int, number: int) -> bytes:
    """The bytes of one case."""
    dice = random.Random(f"{seed}/{number}")
    data = bytearray(dice.choice((*_LAYERS, *_DOCUMENTS, *_ARCHIVES)))
    for _ in range(dice.randint(1, 4)):
        _change(dice, data)
    plain = _repaired(bytes(data)) if dice.random() < 0.7 else bytes(data)
    match dice.randrange(6):
        case 0:
            return _damaged(dice, gzip.compress(plain, 1))
        case 1:
            return _damaged(dice, zstandard.ZstdCompressor(level=1).compress(plain))
        case _:
            return plain


def _change(dice: random.Random, data: bytearray) -> None:
    place = dice.randrange(len(data) or 1)
    match dice.randrange(6):
        case 0:
            data[place : place + 1] = bytes([dice.randrange(256)])
        case 1:
            poison = dice.choice(_POISON)
            data[place : place + len(poison)] = poison
        case 2:
            del data[place:]
        case 3:  # a block is doubled, or moved
            start = place // 512 * 512
            data[start:start] = data[start : start + 512 * dice.randint(1, 3)]
        case 4:
            data[place:place] = dice.choice(_POISON)
        case _:  # the fields of a header are where it hurts
            start = place // 512 * 512
            field = dice.choice((0, 100, 108, 116, 124, 136, 156, 157, 257, 345))
            data[start + field : start + field + 4] = dice.choice(_POISON)[:4].ljust(4, b"7")


def _repaired(data: bytes) -> bytes:
    """With right checksums, so that what was changed is looked at, too."""
    blocks = [data[start : start + 512] for start in range(0, len(data), 512)]
    return b"".join(
        makers.rewritten(block, 0, b"") if len(block) == 512 and block[257:262] == b"ustar" else block
        for block in blocks
    )


def _damaged(dice: random.Random, data: bytes) -> bytes:
    if dice.random() < 0.5:
        return data
    place = dice.randrange(len(data))
    return data[:place] + bytes([dice.randrange(256)]) + data[place + 1 :]


def check(data: bytes) -> bool:
    """Everything that reads such bytes; whether any of them took the bytes for good."""
    readers = (
        _listed,
        _layer,
        _document(manifest.parse),
        _document(image.parse_config),
        _document(documents.parse_list),
    )
    outcomes = [_survives(reader, data) for reader in readers]  # all of them, whatever the first one says
    return any(outcomes)


def _survives(reader: object, data: bytes) -> bool:
    try:
        reader(data)  # type: ignore[operator]
    except errors.ImageError as error:
        text = str(error)
        assert text.isprintable(), f"not printable: {text!r}"
        assert len(text) < 2000, f"{len(text)} characters long"
        assert "case" in text, f"does not name what it is about: {text}"
        return False
    return True


def _listed(data: bytes) -> None:
    file = io.BytesIO(data)
    kind = compression.peek(file, what="case")
    if kind == "none":
        members.scan_plain(file, limits=LIMITS, what="case")
    else:
        source = compression.decompressed(file, kind, what="case")
        members.scan(source, stored_bytes=len(data), limits=LIMITS, what="case")


def _layer(data: bytes) -> None:
    """Read, with every content, and put onto a tree."""
    source = compression.reader(io.BytesIO(data), what="case")
    meter = compression.Meter(source, stored_bytes=len(data), limits=LIMITS, what="case")
    reader = TarReader(meter, what="case", max_entries=LIMITS.max_entries)
    entries = []
    for entry in reader:
        parts = entry.name.split("/")
        assert entry.name == "" or not {"", ".", ".."} & set(parts), f"unclean name {entry.name!r}"
        assert not any(ord(sign) < 0x20 for sign in entry.name), f"control character in {entry.name!r}"
        assert entry.kind is not Kind.HARDLINK or ".." not in entry.link.split("/"), f"hard link to {entry.link!r}"
        end = 0
        for offset, piece in reader.segments():
            assert offset >= end, f"content of {entry.name!r} goes back from {end} to {offset}"
            end = offset + len(piece)
            assert end <= entry.size_bytes, f"content of {entry.name!r} is larger than its size"
        entries.append(entry)
    layer = Layer(digest="case", diff_id="case", size_bytes=len(data), media_type=manifest.OCI_LAYER)
    made = Image(
        digest="case",
        config_digest="case",
        platform=manifest.host_platform(),
        layers=(layer, layer),
        config=image.Config(),
    )
    known = tree.Layers(store=None)  # type: ignore[arg-type]  # nothing is read: the entries are known
    known._known["case"] = tuple(entries)  # as if they had been read
    tree.files(known, made)


def _document(parse: object) -> object:
    def run(data: bytes) -> None:
        parse(data, what="case")  # type: ignore[operator]

    return run
