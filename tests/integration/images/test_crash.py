"""Crash safety: `kill -9` at every step of an import and an unpacking leaves a store that needs no repair.

The process under test kills itself just before its Nth step, for N = 1, 2, 3 … until it gets through; a step is every
operation on the file system that Python's audit hooks report, and every write.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images import archive, errors, export, streams, unpack
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

STEPS = ("open", "os.", "fcntl.", "shutil.", "subprocess.")
LAYER = makers.archive(
    makers.directory("d"), *(makers.member(f"d/{number}", content=b"x" * 600) for number in range(9))
)
IMAGE = makers.files(makers.docker_archive(LAYER, Cmd=["sh"]))
MAX_STEPS = 400


def survives(root: Path) -> None:
    """Everything that the store promises after a crash."""
    store = ImageStore(root)
    settled = time.monotonic() + 10
    while any(store.tmp.iterdir()) and time.monotonic() < settled:
        # An unpacking process may outlive its parent for the moment that the kernel's signal takes.
        store = ImageStore(root)
    assert list(store.tmp.iterdir()) == []
    for path in (root / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for path in store.layers.iterdir():
        assert len(list((path / "diff" / "d").iterdir())) == 9
    for image in store.list():
        assert store.missing(image.digest) == ()


def dies_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a process that kills itself before the given step; False when it got through first."""
    pid = os.fork()
    if pid == 0:
        # What other tests left to be collected may wait for a thread that the child does not have, such as gRPC's.
        gc.disable()
        left = step

        def count(event: str, _: object = None) -> None:
            nonlocal left
            if event.startswith(STEPS):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        real = streams.write_all
        streams.write_all = lambda fd, data: (count("os.write"), real(fd, data))[1]
        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def every_step(root: Path, work: Callable[[], None]) -> int:
    for step in range(1, MAX_STEPS):
        if not dies_at(step, work):
            return step - 1
        survives(root)
    pytest.fail(f"more than {MAX_STEPS} steps")


def test_an_import_may_be_killed_at_every_step(tmp_path: Path) -> None:
    def work() -> None:
        archive.import_archive(ImageStore(tmp_path), makers.stream(IMAGE), name=f"web:{os.getpid()}")

    steps = every_step(tmp_path, work)
    assert steps > 40, "the steps were counted"
    assert ImageStore(tmp_path).list() != ()


def test_an_unpacking_may_be_killed_at_every_step(tmp_path: Path) -> None:
    made = archive.import_archive(ImageStore(tmp_path), makers.stream(IMAGE))

    def work() -> None:
        unpack.unpack(ImageStore(tmp_path), made)

    steps = every_step(tmp_path, work)
    assert steps > 15, "the steps were counted"
    assert len(unpack.unpack(ImageStore(tmp_path), made)) == 1


def test_a_load_of_several_images_may_be_killed_at_every_step(tmp_path: Path) -> None:
    """Either an image has all of its blobs and its names, or it has no name."""
    other = makers.archive(makers.directory("d"), makers.member("d/other"))
    source = ImageStore(tmp_path / "source")
    made = [
        archive.import_archive(source, makers.stream(makers.files(makers.docker_archive(layer))), name=name)
        for layer, name in ((LAYER, "one"), (other, "two"))
    ]
    packed = io.BytesIO()
    export.export_all(source, made, packed, "docker")

    def work() -> None:
        archive.import_all(ImageStore(tmp_path / "store"), makers.stream(packed.getvalue()))

    steps = every_step(tmp_path / "store", work)
    assert steps > 60, "the steps were counted"
    assert [image.digest for image in ImageStore(tmp_path / "store").list()] == [image.digest for image in made]


def test_a_tag_may_be_killed_at_every_step(tmp_path: Path) -> None:
    """The name means the old image or the new one at every moment, never nothing."""
    store = ImageStore(tmp_path)
    old = archive.import_archive(store, makers.stream(IMAGE), name="web")
    new = archive.import_archive(
        store, makers.stream(makers.files(makers.docker_archive(LAYER, Cmd=["new"]))), name="b"
    )
    for step in range(1, MAX_STEPS):
        store.tag("web", old.digest)
        died = dies_at(step, lambda: ImageStore(tmp_path).tag("web", new.digest) and None)
        survives(tmp_path)
        assert ImageStore(tmp_path).resolve("web").digest in {old.digest, new.digest}
        if not died:
            break
    assert not died
    assert ImageStore(tmp_path).resolve("web").digest == new.digest


def test_a_save_may_be_killed_at_every_step(tmp_path: Path) -> None:
    """A folder has its name only when it is whole; the store is as it was."""
    store = ImageStore(tmp_path / "store")
    made = archive.import_archive(store, makers.stream(IMAGE), name="web")
    targets = iter(tmp_path / f"saved-{number}" for number in range(MAX_STEPS))
    for step in range(1, MAX_STEPS):
        target = next(targets)
        died = dies_at(step, lambda: export.export_folder(ImageStore(store.root), [made], target))  # noqa: B023 - now
        survives(store.root)
        if target.exists():
            copied = archive.import_archive(ImageStore(tmp_path / f"copy-{step}"), target)
            assert copied.digest == made.digest
        if not died:
            break
        assert {path.name for path in tmp_path.glob(".saved-*")} <= {f".{target.name}.part"}
        export.export_folder(ImageStore(store.root), [made], _beside(target))
        assert not list(tmp_path.glob(".saved-*")), "the next save takes away what a killed one has left"
    assert not died
    assert target.exists()


def _beside(target: Path) -> Path:
    """The same target, made free."""
    if target.exists():
        shutil.rmtree(target)
    return target


def test_a_removal_may_be_killed_at_every_step(tmp_path: Path) -> None:
    kept = archive.import_archive(
        ImageStore(tmp_path), makers.stream(makers.files(makers.docker_archive(LAYER, Cmd=["kept"]))), name="kept"
    )
    for step in range(1, MAX_STEPS):
        store = ImageStore(tmp_path)
        archive.import_archive(store, makers.stream(IMAGE), name="web")
        died = dies_at(step, lambda: ImageStore(tmp_path).forget(["web"]) and None)
        survives(tmp_path)
        assert ImageStore(tmp_path).missing(kept.digest) == ()
        if not died:
            break
    assert not died
    assert [image.digest for image in ImageStore(tmp_path).list()] == [kept.digest]


def test_a_prune_may_be_killed_at_every_step(tmp_path: Path) -> None:
    for step in range(1, MAX_STEPS):
        store = ImageStore(tmp_path)
        made = archive.import_archive(store, makers.stream(IMAGE), name="web")
        unpack.unpack(store, made)
        store.untag("web")
        died = dies_at(step, lambda: ImageStore(tmp_path).prune() and None)
        survives(tmp_path)
        if not died:
            break
    assert not died
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == []


UNPACK = """
import pathlib, sys
from images import errors, store, unpack
images = store.ImageStore(pathlib.Path(sys.argv[1]))
try:
    unpack.unpack(images, images.resolve("web"))
except errors.StorageFailed as error:
    print(error)
"""


@pytest.fixture
def unpacking(tmp_path: Path) -> Iterator[tuple[ImageStore, subprocess.Popen[str], int]]:
    """A store, a process that unpacks a layer of 100 MB there, and the pid of its child in the middle of the work."""
    store = ImageStore(tmp_path / "images")
    layer = makers.archive(makers.member("big", content=b"x" * (100 << 20)))
    archive.import_archive(store, makers.stream(layer), name="web")
    for _ in range(10):
        command = [sys.executable, "-c", UNPACK, str(store.root)]
        folder = Path(unpack.__file__).parent.parent
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as parent:
            wait_until(lambda: any(store.tmp.glob("*/diff/big")) or any(store.layers.iterdir()))
            found = children(parent.pid)
            if found and not any(store.layers.iterdir()):
                yield store, parent, found[0]
                parent.kill()
                return
        for done in store.layers.iterdir():  # on a busy machine the work may be over before we look
            shutil.rmtree(done)
    pytest.fail("ten unpackings ended before we looked")


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "waited for 20 s"


def test_a_killed_unpacking_process_is_an_error_and_leaves_nothing(
    unpacking: tuple[ImageStore, subprocess.Popen[str], int],
) -> None:
    store, parent, child = unpacking
    os.kill(child, signal.SIGKILL)
    printed, _ = parent.communicate(timeout=20)
    assert "the unpacking process ended with -9" in printed
    assert list(store.layers.iterdir()) == []
    assert list(store.tmp.iterdir()) == []
    with store.layer_lock(store.resolve("web").chain_ids[0], timeout_s=0.1):
        pass


def test_the_unpacking_process_dies_with_its_parent(unpacking: tuple[ImageStore, subprocess.Popen[str], int]) -> None:
    store, parent, child = unpacking
    parent.kill()
    parent.wait(20)
    wait_until(lambda: not Path(f"/proc/{child}/exe").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())
    survives(store.root)


def test_a_garbage_layer_does_not_block_the_next(tmp_path: Path) -> None:
    """CVE-2021-20291: a crafted image must not leave the store locked."""
    store = ImageStore(tmp_path)
    bad = archive.import_archive(
        store, makers.stream(makers.files(makers.docker_archive(b"garbage" * 100))), name="bad"
    )
    with pytest.raises(errors.InvalidImage, match="not a tar header"):
        unpack.unpack(store, bad)
    good = archive.import_archive(store, makers.stream(IMAGE), name="good")
    assert len(unpack.unpack(store, good)) == 1
    store.untag("bad")
    assert store.prune().blobs == 3
