"""Unpacking: a layer's folder is what the archive says, in overlayfs' terms; a hostile layer leaves nothing behind."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from images import archive, errors, image, unpack
from images import digest as digests
from images.store import ImageStore
from tests.unit.images import makers

pytestmark = pytest.mark.root

Load = Callable[..., image.Image]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "trusted.overlay.opaque") == b"y"


def unpack_one(store: ImageStore, made: image.Image) -> Path:
    (folder,) = unpack.unpack(store, made)
    return folder


# What entries become


def test_files_keep_mode_owner_time_and_content(store: ImageStore, load: Load) -> None:
    folder = unpack_one(
        store,
        load(
            makers.archive(
                makers.directory("d", mode=0o2775, uid=10, gid=20, mtime=1000),
                makers.member("d/su", content=b"x" * 3_000_000, mode=0o6755, uid=1000, gid=2000, mtime=5000.25),
                makers.member("late", mode=0, mtime=-5),
                makers.symlink("d/link", "/etc/passwd"),
                makers.hardlink("hard", "d/su"),
                makers.member("pipe", tarfile.FIFOTYPE, mode=0o600),
                makers.device("null", 1, 3),
            )
        ),
    )
    found = (folder / "d/su").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o6755, 1000, 2000)
    assert (found.st_mtime_ns, found.st_size, found.st_nlink) == (5_000_250_000_000, 3_000_000, 2)
    assert (folder / "hard").stat().st_ino == found.st_ino
    top = (folder / "d").stat()
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid, top.st_mtime) == (0o2775, 10, 20, 1000)
    assert (folder / "late").stat().st_mtime == -5
    assert (folder / "d/link").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((folder / "pipe").lstat().st_mode)
    assert (folder / "null").lstat().st_rdev == os.makedev(1, 3)


def test_folders_keep_their_times_whatever_is_put_into_them_later(store: ImageStore, load: Load) -> None:
    folder = unpack_one(
        store,
        load(
            makers.archive(
                makers.directory("./", mtime=11, mode=0o700),
                makers.directory("a", mtime=22),
                makers.directory("a/b", mtime=33),
                makers.member("a/b/file", mtime=44),
                makers.member("top", mtime=55),
                makers.member("a/again", mtime=66),
                makers.member("implied/deep/file", mtime=77),
            )
        ),
    )
    times = {name: (folder / name).stat().st_mtime for name in (".", "a", "a/b", "implied", "implied/deep")}
    assert times == {".": 11, "a": 22, "a/b": 33, "implied": 77, "implied/deep": 77}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "implied").stat().st_mode) == 0o755


def test_capabilities_and_user_attributes_are_kept_and_foreign_labels_left_out(store: ImageStore, load: Load) -> None:
    capability = bytes.fromhex("0100000202000000000000000000000000000000")
    pax = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.user.colour": "blue",
        "SCHILY.xattr.security.selinux": "system_u",
        "SCHILY.xattr.trusted.note": "x",
    }
    packed = makers.archive(makers.member("ping", mode=0o755, uid=1, pax_headers=pax))
    ping = unpack_one(store, load(packed)) / "ping"
    assert {name: os.getxattr(ping, name) for name in os.listxattr(ping)} == {
        "security.capability": capability,
        "user.colour": b"blue",
    }


def test_sparse_files_stay_sparse(store: ImageStore, load: Load, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(128 << 20)
    command = ["tar", "-C", str(tmp_path), "--sparse", "--format=posix", "-cf", "-", "sparse"]
    sparse = unpack_one(store, load(subprocess.run(command, check=True, capture_output=True).stdout)) / "sparse"
    assert sparse.stat().st_size == 128 << 20
    assert sparse.stat().st_blocks * 512 < 1 << 20
    with sparse.open("rb") as file:
        file.seek(64 << 20)
        assert file.read(4) == b"end\0"


def test_whiteouts_become_what_overlayfs_reads(store: ImageStore, load: Load) -> None:
    folder = unpack_one(
        store,
        load(
            makers.archive(
                makers.member(".wh.gone"),
                makers.member("d/.wh.gone"),
                makers.member("opaque/.wh..wh..opq"),
                makers.member(".wh..wh.plnk"),
                makers.member(".wh..wh.orph/1.2"),
            )
        ),
    )
    assert tree(folder) == {"gone", "d", "d/gone", "opaque"}
    assert is_whiteout(folder / "gone")
    assert is_whiteout(folder / "d/gone")
    assert is_opaque(folder / "opaque")
    assert not is_opaque(folder / "d")


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_hides_what_is_below_and_never_what_the_layer_brings(
    store: ImageStore, load: Load, whiteout_first: bool
) -> None:
    whiteouts = [makers.member(f".wh.{name}") for name in ("file", "folder", "implied")]
    brought = [makers.member("file", content=b"new"), makers.directory("folder"), makers.member("implied/x")]
    members = whiteouts + brought if whiteout_first else brought + whiteouts
    folder = unpack_one(store, load(makers.archive(*members)))
    assert (folder / "file").read_bytes() == b"new"
    assert is_opaque(folder / "folder")
    assert is_opaque(folder / "implied")
    assert (folder / "implied/x").exists()


def test_the_last_of_several_entries_of_one_name_wins(store: ImageStore, load: Load) -> None:
    folder = unpack_one(
        store,
        load(
            makers.archive(
                makers.member("f", content=b"first, and longer"),
                makers.member("f", content=b"second"),
                makers.directory("d", mode=0o700),
                makers.member("d/kept"),
                makers.directory("d", mode=0o755),
                makers.directory("was-folder"),
                makers.member("was-folder/inside"),
                makers.member("was-folder", content=b"file"),
                makers.symlink("was-link", "/etc"),
                makers.directory("was-link"),
                makers.member("was-link/x"),
                makers.symlink("f2", "f"),
                makers.member("f2", content=b"not through the link"),
            )
        ),
    )
    assert (folder / "f").read_bytes() == b"second"
    assert stat.S_IMODE((folder / "d").stat().st_mode) == 0o755
    assert tree(folder) == {"f", "d", "d/kept", "was-folder", "was-link", "was-link/x", "f2"}
    assert (folder / "was-folder").is_file()
    assert not (folder / "was-link").is_symlink()


def test_overlayfs_shows_the_stack_as_the_image_means_it(store: ImageStore, load: Load, tmp_path: Path) -> None:
    below = makers.archive(
        makers.member("kept"), makers.member("gone"), makers.member("d/old"), makers.member("swapped/old")
    )
    above = makers.archive(
        makers.member(".wh.gone"),
        makers.member("d/.wh..wh..opq"),
        makers.member("d/new"),
        makers.member(".wh.swapped"),
        makers.member("swapped/new"),
    )
    lower = unpack.unpack(store, load(below, above))
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={':'.join(map(str, reversed(lower)))},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{tmp_path}/merged"], check=True)
    try:
        assert tree(tmp_path / "merged") == {"kept", "d", "d/new", "swapped", "swapped/new"}
    finally:
        subprocess.run(["umount", f"{tmp_path}/merged"], check=True)


def test_a_layer_of_several_gzip_members_is_one_layer(store: ImageStore) -> None:
    plain = makers.archive(makers.member("f", content=b"x" * 5000))
    packed = gzip.compress(plain[:700]) + gzip.compress(plain[700:]) + bytes(600_000)
    folder = unpack_one(store, makers.compressed_image(store, packed, digests.of_bytes(plain)))
    assert (folder / "f").read_bytes() == b"x" * 5000


def test_a_layer_that_rotted_on_the_disk_is_removed_and_can_be_fetched_again(store: ImageStore, load: Load) -> None:
    layer = makers.archive(makers.member("f", content=b"content"))
    made = load(layer)
    path = store.root / "blobs" / "sha256" / made.layers[0].digest.removeprefix("sha256:")
    path.write_bytes(layer.replace(b"content", b"CONTENT"))
    with pytest.raises(errors.DigestMismatch, match="damaged on the disk and is removed"):
        unpack.unpack(store, made)
    (lacking,) = store.missing(made.digest)
    with store.writer(lacking.digest, lacking.size_bytes) as blob:
        blob.write(layer)
    assert (unpack_one(store, made) / "f").read_bytes() == b"content"


# Sharing


def test_a_common_base_is_unpacked_once(store: ImageStore, load: Load) -> None:
    base, first, second = (makers.archive(makers.member(name)) for name in ("base", "first", "second"))
    one, two = load(base, first, name="one"), load(base, second, name="two")
    below = unpack.unpack(store, one)[0]
    before = below.stat().st_ino, below.stat().st_ctime_ns
    folders = unpack.unpack(store, two)
    assert folders[0] == below
    assert (below.stat().st_ino, below.stat().st_ctime_ns) == before
    assert len(list(store.layers.iterdir())) == 3
    assert unpack.unpack(store, two) == folders


def test_many_at_once_cost_one_unpacking(store: ImageStore, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load(makers.archive(*(makers.member(f"f{number}") for number in range(200))))
    runs = []
    real = unpack._run
    monkeypatch.setattr(unpack, "_run", lambda *args, **options: (runs.append(1), real(*args, **options))[1])
    start = threading.Barrier(6)

    def run(_: int) -> list[Path]:
        start.wait(10)
        return unpack.unpack(ImageStore(store.root), made)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(run, range(6)))
    assert all(result == results[0] for result in results)
    assert len(runs) == 1
    assert len(tree(results[0][0])) == 200


def test_one_who_waits_too_long_is_told_to_come_back(store: ImageStore, load: Load) -> None:
    made = load(makers.archive(makers.member("f")))
    with store.layer_lock(made.chain_ids[0], timeout_s=1), pytest.raises(errors.Busy, match="try again later"):
        unpack.unpack(store, made, timeout_s=0.05)


# File systems that cannot


def test_a_file_system_without_devices_is_named_as_the_reason(tmp_path: Path) -> None:
    """ramfs has no extended attributes, so a layer with an opaque folder cannot be kept there."""
    mount = tmp_path / "plain"
    mount.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(mount)], check=True)
    try:
        store = ImageStore(mount / "images")
        layer = makers.archive(makers.member("d/.wh..wh..opq"))
        made = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(layer))))
        with pytest.raises(errors.StorageFailed, match="needs root and a file system with device nodes and extended"):
            unpack.unpack(store, made)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
