"""What a root holds is worked out without unpacking: overlayfs over the unpacked layers is the judge of it."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from images import archive, differences, errors, flatten, image, unpack
from images import digest as digests
from images.store import ImageStore
from tests.unit.images import makers

pytestmark = pytest.mark.root

Load = Callable[..., image.Image]
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@contextlib.contextmanager
def merged(store: ImageStore, made: image.Image, work: Path) -> Iterator[Path]:
    """The image as a container sees it."""
    (work / "bottom").mkdir(parents=True)
    (work / "merged").mkdir()
    lower = ":".join([*(str(folder) for folder in reversed(unpack.unpack(store, made))), str(work / "bottom")])
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", str(work / "merged")], check=True
    )
    try:
        yield work / "merged"
    finally:
        subprocess.run(["umount", str(work / "merged")], check=True)


def exported(store: ImageStore, made: image.Image, target: Path) -> Path:
    """The export, unpacked by GNU tar."""
    packed = io.BytesIO()
    flatten.export_root(store, made, packed)
    target.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    subprocess.run(["tar", "-C", str(target), *options, "-xf", "-"], input=packed.getvalue(), check=True)
    return target


def describe(folder: Path, *, with_times: bool = True) -> dict[str, Any]:
    found = {}
    for path in folder.rglob("*"):
        if not os.path.lexists(path):
            continue  # overlayfs lists a whiteout that hides nothing, although there is no such file
        info = path.lstat()
        facts: tuple[Any, ...] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_rdev)
        facts += (info.st_mtime_ns,) if with_times else ()
        if path.is_symlink():
            facts += (str(path.readlink()),)
        elif path.is_file():
            attributes = {key: os.getxattr(path, key) for key in os.listxattr(path) if not key.startswith("trusted.")}
            facts += (path.read_bytes(), attributes)
        found[str(path.relative_to(folder))] = facts
    return found


LOWER = makers.archive(
    makers.directory("bin", mtime=1_500_000_000),
    makers.member("bin/tool", content=b"tool" * 3000, mode=0o4755, uid=5, gid=70_000, mtime=1_600_000_000),
    makers.hardlink("bin/again", "bin/tool"),
    makers.hardlink("bin/third", "bin/tool"),
    makers.symlink("bin/sh", "tool"),
    makers.directory("d", mtime=1_500_000_000),
    makers.member("d/old"),
    makers.directory("gone", mtime=1_500_000_000),
    makers.member("gone/with"),
    makers.member("becomes-folder"),
    makers.directory("becomes-file", mtime=1_500_000_000),
    makers.member("becomes-file/inside"),
    makers.directory("dev", mtime=1_500_000_000),
    makers.device("dev/null", 1, 3),
    makers.member("fine", content=b"f", pax_headers={"mtime": "1600000000.123456789"}),
    makers.member("n" * 200, content=b"long"),
)
UPPER = makers.archive(
    makers.directory("bin", mode=0o711, mtime=1_550_000_000),
    makers.member("bin/tool", content=b"newer", mtime=1_650_000_000),
    makers.directory("d", mtime=1_550_000_000),
    makers.member("d/.wh..wh..opq"),
    makers.member("d/new"),
    makers.member(".wh.gone"),
    makers.directory("becomes-folder", mtime=1_550_000_000),
    makers.member("becomes-folder/inside"),
    makers.member("becomes-file"),
)


def test_an_export_is_what_a_container_sees(store: ImageStore, load: Load, tmp_path: Path) -> None:
    """Also where a name's file was replaced above, and its hard links below go on with the old content."""
    made = load(LOWER, UPPER)
    found = exported(store, made, tmp_path / "exported")
    with merged(store, made, tmp_path / "overlay") as expected:
        assert describe(found) == describe(expected)
    assert (found / "bin/again").read_bytes() == b"tool" * 3000
    assert (found / "bin/again").stat().st_ino == (found / "bin/third").stat().st_ino
    assert (found / "bin/tool").read_bytes() == b"newer"


def test_an_export_comes_back_as_an_image_of_one_layer(store: ImageStore, load: Load) -> None:
    made = load(LOWER, UPPER)
    packed = io.BytesIO()
    flatten.export_root(store, made, packed)
    flat = archive.import_archive(store, makers.stream(packed.getvalue()), name="flat")
    assert len(flat.layers) == 1
    assert differences.compare(store, made, flat) == ()
    again = io.BytesIO()
    flatten.export_root(store, flat, again)
    assert again.getvalue() == packed.getvalue(), "the same root gives the same bytes"
    assert unpack.unpack(store, flat)


def test_capabilities_and_attributes_travel(store: ImageStore, load: Load, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "able").write_bytes(b"able")
    os.setxattr(source / "able", "security.capability", CAPABILITY)
    os.setxattr(source / "able", "user.colour", b"blue\xff\0")
    packed = subprocess.run(
        ["tar", "-C", str(source), "--xattrs", "--xattrs-include=*", "-cf", "-", "."], capture_output=True, check=True
    ).stdout
    found = exported(store, load(packed), tmp_path / "exported")
    assert os.getxattr(found / "able", "security.capability") == CAPABILITY
    assert os.getxattr(found / "able", "user.colour") == b"blue\xff\0"


def test_holes_are_zeros_and_have_a_bound(store: ImageStore, load: Load, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"data")
    packed = subprocess.run(
        ["tar", "-C", str(tmp_path), "--sparse", "-cf", "-", "sparse"], capture_output=True, check=True
    ).stdout
    assert len(packed) < 100_000
    found = exported(store, load(packed), tmp_path / "exported")
    assert (found / "sparse").read_bytes() == sparse.read_bytes()
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    packed = subprocess.run(
        ["tar", "-C", str(tmp_path), "--sparse", "-cf", "-", "huge"], capture_output=True, check=True
    ).stdout
    with pytest.raises(errors.LimitExceeded, match="the bound is"):
        flatten.export_root(store, load(packed, name="huge"), io.BytesIO())


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (makers.archive(makers.device("sda", 8, 0)), "'sda': this character device 8:0 is refused"),
        (makers.archive(makers.hardlink("a", "etc/passwd")), "'a': hard link to 'etc/passwd', which is no file of"),
        (makers.archive(makers.member("f"), makers.member("f/x")), "'f/x': its folder 'f' is no folder"),
        (makers.archive(makers.member(".wh.x/y")), "a whiteout cannot be a folder"),
        (makers.archive(makers.member(".wh...")), "a whiteout must name one file"),
        (makers.archive(makers.symlink("./", "x")), "the top of a layer must be a folder"),
    ],
)
def test_what_is_not_unpacked_is_not_exported(store: ImageStore, load: Load, layer: bytes, complaint: str) -> None:
    made = load(layer)
    sink = io.BytesIO()
    with pytest.raises(errors.InvalidImage) as caught:
        flatten.export_root(store, made, sink)
    assert complaint in str(caught.value)
    assert sink.getvalue() == b"", "it is found out before the first byte is written"
    with pytest.raises(errors.InvalidImage):
        unpack.unpack(store, made)


def test_a_layer_that_lies_about_its_content_is_not_exported(store: ImageStore) -> None:
    made = makers.compressed_image(store, makers.archive(makers.member("f")), digests.of_bytes(b"something else"))
    with pytest.raises(errors.DigestMismatch, match="the image's config says"):
        flatten.export_root(store, made, io.BytesIO())


# Differences


def test_every_kind_of_difference_is_told(store: ImageStore, load: Load) -> None:
    before = load(
        makers.archive(
            makers.directory("d"),
            makers.member("d/same", content=b"same", mtime=1),
            makers.member("d/content", content=b"one!"),
            makers.member("d/mode", mode=0o644),
            makers.member("d/owner", uid=1),
            makers.symlink("d/link", "a"),
            makers.member("d/kind"),
            makers.member("d/gone", content=b"12345"),
        ),
        name="before",
    )
    after = load(
        makers.archive(
            makers.directory("d"),
            makers.member("d/same", content=b"same", mtime=2),
            makers.member("d/content", content=b"two!"),
            makers.member("d/mode", mode=0o755),
            makers.member("d/owner", uid=2),
            makers.symlink("d/link", "b"),
            makers.symlink("d/kind", "x"),
            makers.member("d/new", content=b"123"),
        ),
        name="after",
    )
    found = {change.path: change for change in differences.compare(store, before, after)}
    assert {path: (change.kind, change.what) for path, change in found.items()} == {
        "d/content": ("changed", ("content",)),
        "d/mode": ("changed", ("mode",)),
        "d/owner": ("changed", ("owner",)),
        "d/link": ("changed", ("link",)),
        "d/kind": ("changed", ("kind",)),
        "d/gone": ("removed", ()),
        "d/new": ("added", ()),
    }
    assert (found["d/gone"].before_bytes, found["d/new"].after_bytes) == (5, 3)
    assert differences.compare(store, before, before) == ()


def test_layers_above_a_common_base_are_compared_by_what_they_change(store: ImageStore, load: Load) -> None:
    base = load(LOWER, name="base")
    changed = load(LOWER, UPPER, name="changed")
    paths = {change.path: change.kind for change in differences.compare(store, base, changed)}
    assert paths == {
        "bin": "changed",
        "bin/tool": "changed",
        "d/old": "removed",
        "d/new": "added",
        "gone": "removed",
        "gone/with": "removed",
        "becomes-folder": "changed",
        "becomes-folder/inside": "added",
        "becomes-file": "changed",
        "becomes-file/inside": "removed",
    }


_NAMES = st.sampled_from(["a", "b", "a/b", "a/c", "a/b/c", "b/a", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".wh.b"])
_ENTRIES = st.one_of(
    st.builds(makers.member, _NAMES, content=st.binary(max_size=30), mode=st.sampled_from([0o600, 0o4755])),
    st.builds(makers.directory, _NAMES, mode=st.sampled_from([0o700, 0o755])),
    st.builds(makers.symlink, _NAMES, st.sampled_from(["a", "b/a"])),
    st.builds(makers.hardlink, _NAMES, st.sampled_from(["a", "a/b", "b/a"])),
)
_LAYERS = st.lists(st.lists(_ENTRIES, min_size=1, max_size=6), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=_LAYERS)
@example(layers=[[makers.symlink("b/a", "a"), makers.hardlink("b", "b/a")]])  # into what it takes the place of
@example(layers=[[makers.member("a"), makers.hardlink("a", "a")]])
@example(layers=[[makers.member("b/a"), makers.member("b"), makers.hardlink("a", "b/a")]])
@example(layers=[[makers.member("b/a"), makers.directory("b/a"), makers.hardlink("a", "b/a")]])
@example(layers=[[makers.member("b/a")], [makers.hardlink("a", "b/a")]])
@example(layers=[[makers.directory("b/a"), makers.symlink("b", "a")]] * 2)  # the same layer twice
def test_any_stack_is_what_overlayfs_makes_of_it(layers: list[list[bytes]], store: ImageStore) -> None:
    packed = makers.files(makers.docker_archive(*(makers.archive(*entries) for entries in layers)))
    made = archive.import_archive(store, makers.stream(packed))
    with tempfile.TemporaryDirectory(prefix="pytest-flat-") as name:
        work = Path(name)
        try:
            unpack.unpack(store, made)
        except errors.InvalidImage:
            with pytest.raises(errors.InvalidImage):
                flatten.export_root(store, made, io.BytesIO())
            return
        found = exported(store, made, work / "exported")
        with merged(store, made, work / "overlay") as expected:
            assert shape(found) == shape(expected)


def shape(folder: Path) -> dict[str, Any]:
    """Without what differs by right: a folder that a layer implies has in overlayfs the attributes of that layer's."""
    found = describe(folder, with_times=False)
    return {name: "folder" if facts[0].startswith("d") else facts for name, facts in found.items()}
