"""Hostile layers: each is refused by entry, in bounded time and memory, and leaves nothing behind, here or outside."""

from __future__ import annotations

import functools
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import compression, errors, extract, image, tarstream, unpack
from images import digest as digests
from tests.unit.images import makers

if TYPE_CHECKING:
    from images.store import ImageStore

pytestmark = pytest.mark.root

Load = Callable[..., image.Image]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder that must look the same after every attack."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    yield folder
    assert tree(folder) == {"secret"}
    assert (folder / "secret").read_text() == "secret"
    assert (folder / "secret").stat().st_nlink == 1


def attacks(canary: Path) -> dict[str, tuple[bytes, str]]:
    outside = str(canary)
    return {
        "parent": (makers.member("../../../../../../tmp/evil"), "holds '..'"),
        "absolute": (makers.member(f"{outside}/evil"), "absolute"),
        "through a link": (makers.symlink("l", outside) + makers.member("l/evil"), "passes through a symbolic link"),
        "through two links": (
            makers.symlink("a", "b") + makers.symlink("b", outside) + makers.member("a/x/evil"),
            "passes through a symbolic link",
        ),
        "folder through a link": (
            makers.symlink("l", outside) + makers.directory("l/evil"),
            "passes through a symbolic link",
        ),
        "whiteout through a link": (
            makers.symlink("l", outside) + makers.member("l/.wh.secret"),
            "passes through a symbolic link",
        ),
        "hard link outside": (makers.hardlink("h", f"..{outside}/secret"), "holds '..'"),
        "hard link through a link": (
            makers.symlink("l", outside) + makers.hardlink("h", "l/secret"),
            "not in this layer",
        ),
        "hard link to nothing": (makers.hardlink("h", "nothing"), "no file of this layer"),
        "hard link to a folder": (makers.directory("d") + makers.hardlink("h", "d"), "no file of this layer"),
        "hard link to a whiteout": (makers.member(".wh.x") + makers.hardlink("h", "x"), "no file of this layer"),
        "hard link to itself": (makers.member("h") + makers.hardlink("h", "h"), "no file of this layer"),
        "below a file": (makers.member("f") + makers.member("f/x"), "is no folder"),
        "disk": (makers.device("sda", 8, 0, tarfile.BLKTYPE), "block device 8:0 is refused"),
        "memory": (makers.device("mem", 1, 1), "character device 1:1 is refused"),
        "smuggled whiteout": (makers.device("etc", 0, 0), "character device 0:0 is refused"),
        "whiteout of the parent": (makers.member("d/.wh..."), "must name one file"),
        "whiteout of itself": (makers.member("d/.wh.."), "must name one file"),
        "whiteout of nothing": (makers.member("d/.wh."), "must name one file"),
        "whiteout as a folder": (makers.member("d/.wh.x/y"), "cannot be a folder"),
        "overlay attribute": (
            makers.directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
            "'trusted.overlay.redirect' would steer overlayfs",
        ),
        "user overlay attribute": (
            makers.directory("d", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"}),
            "would steer overlayfs",
        ),
        "broken capability": (
            makers.member("f", pax_headers={"SCHILY.xattr.security.capability": "x"}),
            "'security.capability' has a value that the kernel refuses",
        ),
        "top that is a file": (makers.member("./", tarfile.FIFOTYPE), "the top of a layer must be a folder"),
        "line break in a name": (makers.member("a\nb"), "control character"),
        "cut off": (makers.member("f", content=b"x" * 5000)[:-1600], "cut off"),
    }


@pytest.mark.parametrize("name", attacks(Path("/x")))
def test_a_hostile_layer_is_refused_by_entry_and_leaves_nothing(
    store: ImageStore, load: Load, canary: Path, name: str
) -> None:
    members, complaint = attacks(canary)[name]
    layer = members if name == "cut off" else makers.archive(makers.member("honest"), members)
    made = load(layer)
    with pytest.raises(errors.InvalidImage) as caught:
        unpack.unpack(store, made)
    assert complaint in str(caught.value)
    assert f"layer {made.layers[0].digest}" in str(caught.value)
    assert list(store.layers.iterdir()) == []
    assert list(store.tmp.iterdir()) == []
    assert not Path("/tmp/evil").exists()
    assert len(unpack.unpack(store, load(makers.archive(makers.member("honest"))))) == 1, "no lock stays"


def test_a_layer_whose_diff_id_lies_is_refused(store: ImageStore) -> None:
    packed = gzip.compress(makers.archive(makers.member("f")))
    with pytest.raises(errors.DigestMismatch, match="the image's config says sha256:"):
        unpack.unpack(store, makers.compressed_image(store, packed, digests.of_bytes(b"other")))
    assert list(store.layers.iterdir()) == []


@pytest.mark.parametrize("cut", [20, 9])
def test_a_cut_or_damaged_gzip_stream_is_refused(store: ImageStore, cut: int) -> None:
    plain = makers.archive(makers.member("f", content=os.urandom(5000)))
    with pytest.raises(errors.InvalidImage, match="gzip stream"):
        unpack.unpack(
            store,
            makers.compressed_image(store, gzip.compress(plain)[:-cut] + b"\0" * (9 - cut), digests.of_bytes(plain)),
        )


@functools.cache
def _zeros() -> bytes:
    """512 MiB of zeros in half a megabyte, which other tools unpack without a word."""
    return subprocess.run("head -c 536870912 /dev/zero | gzip -1", shell=True, check=True, capture_output=True).stdout


def _bomb(store: ImageStore) -> image.Image:
    header = makers.rewritten(makers.member("zeros"), 124, b"04000000000\0")
    return makers.compressed_image(store, gzip.compress(header) + _zeros(), digests.of_bytes(b""))


def test_a_bomb_is_stopped_early(store: ImageStore) -> None:
    with pytest.raises(errors.LimitExceeded, match="more than 200 times its stored size"):
        unpack.unpack(store, _bomb(store))
    assert list(store.tmp.iterdir()) == []


def test_memory_does_not_grow_with_the_layer(store: ImageStore) -> None:
    """The bomb again, let through up to its end: unpacking 512 MiB takes what unpacking nothing takes, and a little."""
    script = (
        "import pathlib, resource, sys\n"
        "from images import compression, errors, store, unpack\n"
        "images = store.ImageStore(pathlib.Path(sys.argv[1]))\n"
        "try:\n"
        "    unpack.unpack(images, images.resolve(sys.argv[2]), limits=compression.Limits(max_ratio=5000))\n"
        "except errors.DigestMismatch:\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    print(status.partition('VmHWM:')[2].split()[0])\n"
        "    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", script, str(store.root), _bomb(store).digest]
    printed = subprocess.run(command, check=True, capture_output=True, cwd=Path(unpack.__file__).parent.parent).stdout
    peaks_kib = [int(line) for line in printed.split()]
    assert len(peaks_kib) == 2, "the layer was read to its end, where its digest was found wrong"
    assert max(peaks_kib) < 64 << 10


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (compression.Limits(max_entries=5), "more than 5 entries"),
        (compression.Limits(max_bytes=2048), "more than 2048 bytes"),
    ],
)
def test_the_caller_bounds_entries_and_bytes(
    store: ImageStore, load: Load, limits: compression.Limits, complaint: str
) -> None:
    made = load(makers.archive(*(makers.member(f"f{number}") for number in range(6))))
    with pytest.raises(errors.LimitExceeded, match=complaint):
        unpack.unpack(store, made, limits=limits)
    assert list(store.tmp.iterdir()) == []


def test_a_hole_larger_than_the_bound_is_refused(store: ImageStore, load: Load) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    made = load(makers.archive(makers.member("hole", content=b"0\n".ljust(512, b"\0"), pax_headers=pax)))
    with pytest.raises(errors.LimitExceeded, match="the bound is"):
        unpack.unpack(store, made)


def test_folders_that_no_entry_lists_are_bounded_too(store: ImageStore, load: Load) -> None:
    made = load(makers.archive(makers.member("d/" * 200 + "f")))
    with pytest.raises(errors.LimitExceeded, match="more than 100 folders that no entry lists"):
        unpack.unpack(store, made, limits=compression.Limits(max_entries=100))


def test_a_layer_that_takes_too_long_is_given_up(store: ImageStore, load: Load) -> None:
    made = load(makers.archive(makers.member("f")))
    with pytest.raises(errors.LimitExceeded, match=r"not unpacked within 0\.001 s"):
        unpack.unpack(store, made, timeout_s=0.001)
    assert list(store.tmp.iterdir()) == []
    assert len(unpack.unpack(store, made)) == 1


def test_a_missing_layer_is_named(store: ImageStore, load: Load) -> None:
    made = load(makers.archive(makers.member("f")))
    (store.root / "blobs" / "sha256" / digests.hex_of(made.layers[0].digest)).unlink()
    with pytest.raises(errors.NotFound, match="import or fetch"):
        unpack.unpack(store, made)


def test_nothing_in_the_layer_is_loaded_by_the_unpacking_process(store: ImageStore, load: Load) -> None:
    """CVE-2019-14271: a helper inside the new root must not load the root's libraries or modules."""
    planted = [
        makers.member(f"{folder}/{name}", content=b"import os; os.mkdir('/pwned')")
        for folder in ("usr/lib/python3.11", "work/main/images", str(Path(unpack.__file__).parent).lstrip("/"))
        for name in ("encodings/idna.py", "traceback.py", "linecache.py", "errors.py", "extract.py")
    ]
    (folder,) = unpack.unpack(store, load(makers.archive(*planted, makers.member("f"))))
    assert not (folder / "pwned").exists()
    with pytest.raises(errors.InvalidImage):
        unpack.unpack(store, load(makers.archive(*planted, makers.device("x", 8, 0)), name="other"))


_NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/a", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "./", "a//c/"])
_ENTRIES = st.one_of(
    st.builds(makers.member, _NAMES, content=st.binary(max_size=600), mode=st.integers(0, 0o7777)),
    st.builds(makers.directory, _NAMES, mode=st.integers(0, 0o7777)),
    st.builds(makers.symlink, _NAMES, st.sampled_from(["a", "..", "../canary", "../../../../../../../etc", "b/a"])),
    st.builds(makers.hardlink, _NAMES, st.sampled_from(["a", "a/b", "b/a", "a/secret"])),
    st.builds(makers.device, _NAMES, st.just(1), st.sampled_from([3, 5, 9])),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(_ENTRIES, min_size=2, max_size=10))
def test_no_order_of_entries_reaches_outside_even_without_the_chroot(entries: list[bytes], canary: Path) -> None:
    """The second wall: names alone keep an extraction inside, and it either succeeds or refuses an entry."""
    target = canary.parent / "target"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    reader = tarstream.TarReader(makers.stream(makers.archive(*entries)), what="layer", max_entries=100)
    try:
        with extract.Extractor(fd, limits=compression.Limits(), what="layer") as extractor:
            extractor.apply(reader)
    except errors.InvalidImage as error:
        refusal = str(error)
    else:
        refusal = ""
    finally:
        os.close(fd)
        shutil.rmtree(target)
    assert refusal.startswith("layer: ") or not refusal
    assert (tree(canary), (canary / "secret").read_text()) == ({"secret"}, "secret")


def test_a_zstd_bomb_is_stopped_early_and_one_that_was_cut_off_is_refused(store: ImageStore) -> None:
    header = makers.rewritten(makers.member("zeros"), 124, b"04000000000\0")
    packed = subprocess.run(
        ["zstd", "-q", "-c"], input=header + bytes(256 << 20), capture_output=True, check=True
    ).stdout
    with pytest.raises(errors.LimitExceeded, match="more than 200 times its stored size"):
        unpack.unpack(store, makers.compressed_image(store, packed, digests.of_bytes(b"")))
    plain = makers.archive(makers.member("f", content=os.urandom(5000)))
    whole = subprocess.run(["zstd", "-q", "-c"], input=plain, capture_output=True, check=True).stdout
    with pytest.raises(errors.InvalidImage, match="the zstd stream was cut off"):
        unpack.unpack(store, makers.compressed_image(store, whole[:-20], digests.of_bytes(plain)))
    assert list(store.layers.iterdir()) == []
    assert len(unpack.unpack(store, makers.compressed_image(store, whole, digests.of_bytes(plain)))) == 1


def test_entries_without_end_take_no_memory(store: ImageStore, tmp_path: Path) -> None:
    """Ten million of them, packed as a bomb is: they are counted, and nobody keeps them all."""
    entries = b"".join(makers.member(f"d/{number:080}") for number in range(10_000))
    frame = subprocess.run(["zstd", "-q", "-c"], input=entries, capture_output=True, check=True).stdout
    (tmp_path / "many").write_bytes(frame * 1000)
    script = (
        "import pathlib, sys\n"
        "from images import archive, compression, errors, store\n"
        "images, many = store.ImageStore(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])\n"
        "limits = compression.Limits(max_entries=150_000, max_ratio=100_000)\n"
        "try:\n"
        "    archive.import_archive(images, many, limits=limits)\n"
        "except errors.LimitExceeded as error:\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    print(status.partition('VmHWM:')[2].split()[0], error)\n"
    )
    command = [sys.executable, "-c", script, str(store.root), str(tmp_path / "many")]
    printed = subprocess.run(command, check=True, capture_output=True, cwd=Path(unpack.__file__).parent.parent).stdout
    peak_kib, _, message = printed.decode().partition(" ")
    assert "more than 150000 entries; raise the bound to load it" in message
    assert int(peak_kib) < 64 << 10
