"""A disk that is full, read-only or damaged: one error that names the store, whatever was being done."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from images import digest as digests
from images import errors, image, rootfs
from images.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HELLO = digests.of_bytes(b"hello")


def test_a_full_or_broken_disk_is_an_error_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    with pytest.raises(errors.StorageFailed, match="opening the image store"):
        ImageStore(tmp_path / "images")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few dozen files; made read-only or filled by a test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=32", "pytest", folder], check=True, timeout=30)
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=30)


@pytest.mark.root
def test_a_disk_without_room_for_a_file_is_told_by_all_that_make_one(small_disk: Path) -> None:
    """And what was stored before is read as ever."""
    store = ImageStore(small_disk / "images")
    store.put_bytes(b"hello")
    for number in range(32):
        with contextlib.suppress(OSError):
            (small_disk / f"filler-{number}").touch()
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.put_bytes(b"other"),
        lambda: store.hold().__enter__(),
        lambda: store.layer_lock(HELLO, timeout_s=1).__enter__(),
        store.prune,
    )
    for attempt in attempts:
        with pytest.raises(errors.StorageFailed, match="No space left"):
            attempt()
    assert store.read_document(HELLO) == b"hello"


@pytest.mark.root
def test_a_disk_that_became_read_only_is_told_by_all_that_write(small_disk: Path) -> None:
    store = ImageStore(small_disk / "images")
    store.put_bytes(b"hello")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=30)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: ImageStore(small_disk / "images"),
        lambda: store.touch(HELLO),
        lambda: store.put_bytes(b"other"),
        lambda: store.untag("web"),
    )
    for attempt in attempts:
        with pytest.raises(errors.StorageFailed, match="Read-only file system"):
            attempt()


def test_files_that_are_no_files_are_told(tmp_path: Path) -> None:
    """What the disk has damaged beyond reading is an error about this store."""
    store = ImageStore(tmp_path / "images")
    made = rootfs.build_image(store, [rootfs.File(path="f", content=b"x")], image.Config(cmd=("/f",)), "web")
    path = store.root / "blobs" / "sha256" / digests.hex_of(made.digest)
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.StorageFailed, match="reading blob"):
        store.resolve("web")
    names = store.root / "index.json"
    names.unlink()
    names.mkdir()
    with pytest.raises(errors.StorageFailed, match="reading the names"):
        store.resolve("web")
