"""Work in progress is removed, whatever it is, and nothing beside it."""

from __future__ import annotations

import os
import resource
import threading
from concurrent import futures
from pathlib import Path

from images import scratch
from images.build import containers
from images.store import ImageStore

_DEPTH = 1500
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def nest(folder: Path, depth: int) -> None:
    """Folders in one another, deeper than any path can say; each with a file and an empty folder."""
    fd = os.open(folder, _FOLDER)
    for _ in range(depth):
        for name in ("a", "d", "z"):
            os.mkdir(name, dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", _FOLDER, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def test_a_tree_of_any_depth_is_removed_with_few_descriptors(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    nest(tmp_path / "deep", _DEPTH)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 8, before[1]))
    try:
        scratch.remove(tmp_path / "deep")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_store_sweeps_what_a_killed_process_left_however_deep(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    (store.tmp / "left").mkdir()
    nest(store.tmp / "left", _DEPTH)
    assert list(ImageStore(tmp_path / "store").tmp.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/f").touch()
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    scratch.remove(tmp_path / "tree")
    scratch.remove(tmp_path / "link")
    scratch.remove(tmp_path / "link")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "f"]


def test_builds_may_begin_while_others_end(tmp_path: Path) -> None:
    """Whoever begins sweeps what the dead left, and meets folders that the living are removing."""

    def work() -> None:
        for _ in range(100):
            with scratch.folder(tmp_path) as item:
                (item.path / "run").mkdir()

    with futures.ThreadPoolExecutor(3) as pool:
        builds = [pool.submit(work) for _ in range(3)]
        while not all(build.done() for build in builds):
            containers.sweep(tmp_path)
        for build in builds:
            build.result()
    assert list(tmp_path.iterdir()) == []


def test_folders_are_gone_after_their_block_in_any_thread(tmp_path: Path) -> None:
    def work() -> None:
        with scratch.folder(tmp_path) as item:
            nest(item.path, 20)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == []
