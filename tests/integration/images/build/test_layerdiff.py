"""A step's layer says exactly what the step has changed, with the same bytes each time."""

from __future__ import annotations

import io
import os
import pathlib
import socket
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from images import archive, compression, errors, scratch, unpack
from images.build import layerdiff, views
from tests.support import building
from tests.unit.images import makers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from images.store import ImageStore

pytestmark = pytest.mark.root
EPOCH_S = 1_600_000_000


@pytest.fixture
def place(tmp_path: Path) -> views.Workplace:
    return views.prepare(tmp_path / "w", [below(tmp_path)])


@pytest.fixture
def root(tmp_path: Path, place: views.Workplace) -> Iterator[Path]:
    """The tree of one layer, to be changed by path."""
    with views.mounted(place, [tmp_path / "below"]) as fd:
        yield pathlib.Path(f"/proc/self/fd/{fd}")


def below(folder: Path) -> Path:
    made = folder / "below"
    for name in ("d/inner", "gone", "whole", "kept"):
        (made / name).mkdir(parents=True)
        (made / name / "f").write_text("below")
    (made / "old").write_text("old")
    return made


def test_more_than_anybody_would_unpack_is_refused(root: Path, place: views.Workplace) -> None:
    for name in range(5):
        (root / f"d/{name}").write_bytes(bytes(100))
    fd = os.open(place.upper, os.O_RDONLY)
    try:
        layerdiff.settle(fd)
        for limits, message in (
            (compression.Limits(max_entries=6), "/d/4: the layer has more than 6 files"),
            (compression.Limits(max_bytes=5000), "the layer has more than 5000 bytes"),
        ):
            with pytest.raises(errors.LimitExceeded, match=message):
                layerdiff.write(fd, io.BytesIO(), limits=limits)
        sink = io.BytesIO()
        layerdiff.write(fd, sink, limits=compression.Limits(max_entries=7, max_bytes=16 << 10))
        assert len(members(sink.getvalue())) == 7
    finally:
        os.close(fd)


def written(place: views.Workplace, epoch_s: int | None = None) -> bytes:
    fd, sink = os.open(place.upper, os.O_RDONLY), io.BytesIO()
    try:
        layerdiff.settle(fd, epoch_s=epoch_s)
        layerdiff.write(fd, sink)
    finally:
        os.close(fd)
    return sink.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    return {found.name: found for found in tarfile.open(fileobj=io.BytesIO(data))}


def test_removals_are_whiteouts_and_replaced_folders_are_opaque(root: Path, place: views.Workplace) -> None:
    (root / "gone/f").unlink()
    (root / "gone").rmdir()
    (root / "old").unlink()
    (root / "whole/f").unlink()
    (root / "whole").rmdir()
    (root / "whole").mkdir()
    (root / "whole/new").write_text("new")
    found = members(written(place))
    assert list(found) == [".", ".wh.gone", ".wh.old", "whole", "whole/.wh..wh..opq", "whole/new"]
    assert {found[name].size for name in (".wh.gone", "whole/.wh..wh..opq")} == {0}


def test_everything_that_a_file_has_goes_along(root: Path, place: views.Workplace) -> None:
    (root / "d/set").write_bytes(b"x" * 3_000_000)
    os.chown(root / "d/set", 1000, 70_000)
    (root / "d/set").chmod(0o6755)
    os.setxattr(root / "d/set", "user.a", b"\0\xff=\n")
    os.setxattr(root / "d/set", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.link(root / "d/set", root / "d/again")
    (root / "d/link").symlink_to("/no/where")
    os.mkfifo(root / "d/pipe", 0o600)
    os.mknod(root / "d/null", 0o20666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "d/socket"))
    found = members(written(place))
    assert [name for name in found if name.startswith("d/")] == ["d/again", "d/link", "d/null", "d/pipe", "d/set"]
    first = found["d/again"]
    assert (first.mode, first.uid, first.gid, first.uname, first.size) == (0o6755, 1000, 70_000, "", 3_000_000)
    assert os.fsencode(first.pax_headers["SCHILY.xattr.user.a"]) == b"\0\xff=\n"
    assert "SCHILY.xattr.security.capability" in first.pax_headers
    assert (found["d/set"].type, found["d/set"].linkname) == (tarfile.LNKTYPE, "d/again")
    assert found["d/link"].linkname == "/no/where"
    assert (found["d/pipe"].type, found["d/pipe"].mode) == (tarfile.FIFOTYPE, 0o600)
    assert (found["d/null"].devmajor, found["d/null"].devminor) == (1, 3)
    assert not any(key.startswith("SCHILY.xattr.trusted") for each in found.values() for key in each.pax_headers)


def test_the_folder_is_what_its_tar_unpacks_to(root: Path, place: views.Workplace, store: ImageStore) -> None:
    """So that it can serve as the unpacked layer: names, modes, owners, times, attributes, whiteouts."""
    (root / "old").unlink()
    (root / "d/inner/new").write_text("new")
    os.chown(root / "d/inner", 5, 6)
    (root / "kept/f").chmod(0o400)
    data = written(place)
    image = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(data))), name="x")
    (folder,) = unpack.unpack(store, image)
    one, other = (os.open(each, os.O_RDONLY) for each in (place.upper, folder))
    try:
        assert dict(building.look(one, "")) == dict(building.look(other, ""))
    finally:
        os.close(one)
        os.close(other)
    for path in place.upper.rglob("*"):
        if not path.is_char_device():
            assert path.lstat().st_mtime_ns == (folder / path.relative_to(place.upper)).lstat().st_mtime_ns, path


def test_nothing_is_younger_than_the_epoch(root: Path, place: views.Workplace) -> None:
    (root / "d/new").write_text("new")
    (root / "d/old").write_text("old")
    os.utime(root / "d/old", (EPOCH_S - 7, EPOCH_S - 7))
    data = written(place, EPOCH_S)
    found = members(data)
    assert {found[name].mtime for name in ("d", "d/new")} == {EPOCH_S}
    assert found["d/old"].mtime == EPOCH_S - 7
    assert data == written(place, EPOCH_S)
    assert (place.upper / "d/new").stat().st_mtime == EPOCH_S, "the folder says what the tar says"


def test_zeros_take_no_room_however_the_disk_keeps_them(
    root: Path, place: views.Workplace, store: ImageStore, tmp_path: Path
) -> None:
    content = bytes(5_000_000) + b"middle" + bytes(3_000_000) + b"end"
    with (root / "d/holes").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"middle")
        file.seek(8_000_006)
        file.write(b"end")
    (root / "d/zeros").write_bytes(content)
    (root / "d/empty").write_bytes(bytes(2_000_000))
    (root / "d/full").write_bytes(os.urandom(2_000_000))
    data = written(place)
    assert len(data) < 2_500_000
    pieces = [found.sparse for name, found in members(data).items() if name in {"d/holes", "d/zeros"}]
    assert pieces[0] == pieces[1]
    image = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(data))), name="x")
    (folder,) = unpack.unpack(store, image)
    subprocess.run(["tar", "x", "-C", str(tmp_path), "./d", "d"], input=data, check=False, capture_output=True)
    for where in (folder, tmp_path):
        assert (where / "d/holes").read_bytes() == (where / "d/zeros").read_bytes() == content
        assert (where / "d/empty").read_bytes() == bytes(2_000_000)
        assert (where / "d/full").read_bytes() == (root / "d/full").read_bytes()


def test_names_are_bytes(root: Path, place: views.Workplace, store: ImageStore) -> None:
    names = [os.fsdecode(b"\xff\xfe"), "é" * 120, " "]
    for name in names:
        (root / "d" / name).write_text("x")
    image = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(written(place)))), name="x")
    (folder,) = unpack.unpack(store, image)
    assert {path.name for path in (folder / "d").iterdir()} == set(names)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mknod(path / "disk", 0o60600, os.makedev(8, 0)), "/d/disk: device 8:0 cannot be in an image"),
        (lambda path: (path / ".wh.f").touch(), r"/d/\.wh\.f: a name that begins with \.wh\."),
        (lambda path: (path / ".wh..wh..opq").mkdir(), r"/d/\.wh\.\.wh\.\.opq: a name that begins with"),
        (lambda path: (path / "a\nb").touch(), r"a name with a control character"),
        (lambda path: (path / "/".join("d" * 300)).mkdir(parents=True), "too long or too deep"),
        (
            lambda path: subprocess.run(["mkdir", "-p", "/".join("d" * 1500)], cwd=path, check=True),
            "too long or too deep",
        ),
        (
            lambda path: os.setxattr(path, "user.overlay.opaque", b"y"),
            "/d: the attribute user.overlay.opaque would steer",
        ),
        (
            lambda path: os.setxattr(path / "inner/f", "user.overlay.redirect", b"/"),
            "/d/inner/f: the attribute user.over",
        ),
    ],
    ids=["disk", "whiteout", "opaque", "control", "long", "deep", "overlay folder", "overlay file"],
)
def test_what_would_not_unpack_is_refused(
    root: Path, place: views.Workplace, make: Callable[[Path], None], message: str
) -> None:
    make(root / "d")
    try:
        with pytest.raises(errors.InvalidImage, match=message):
            written(place)
    finally:
        scratch.remove(place.upper)
