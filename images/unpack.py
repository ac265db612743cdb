"""Unpack the layers of an image, each once, into folders that overlayfs stacks.

Rules. A folder below `layers/` is whole: it is filled below `tmp/` by a process of its own that has the folder as its
root (`images.unpacker`), flushed to the disk with one syncfs(2), and only then renamed. Whoever needs a layer that
another thread or process is unpacking waits for it and shares it. A layer that fails leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from images import blobs, compression, disk, errors, parallel, progress, scratch, sweep, syscalls, unpacker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from images.image import Image, Layer
    from images.store import ImageStore

DEFAULT_TIMEOUT_S = 1800.0
_DEFAULT_LIMITS = compression.Limits()
_SILENT = progress.Silent()
_ERRORS: dict[str, type[errors.ImageError]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidImage,
        errors.DigestMismatch,
        errors.LimitExceeded,
        errors.Unsupported,
        errors.StorageFailed,
    )
}


def unpack(
    store: ImageStore,
    image: Image,
    *,
    limits: compression.Limits = _DEFAULT_LIMITS,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    watcher: progress.Progress = _SILENT,
) -> list[Path]:
    """Return the folders of the image's layers, bottom to top, unpacking those that are missing.

    `limits` and `timeout_s` hold for each layer. Raises `InvalidImage` (and its kinds) for a bad layer, `NotFound` for
    a missing one, `Busy` when another process takes longer than `timeout_s`. The folders stay until a `prune` that
    neither a name nor `keep` guards.
    """
    with store.hold():
        store.touch(image.digest)
        return stack(store, image, limits=limits, timeout_s=timeout_s, watcher=watcher)


def stack(
    store: ImageStore,
    image: Image,
    *,
    limits: compression.Limits = _DEFAULT_LIMITS,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    watcher: progress.Progress = _SILENT,
) -> list[Path]:
    """The same for layers of which no manifest is stored yet: those of an image that is being built."""
    with store.hold():
        folders = [store.layer_path(chain_id) for chain_id in image.chain_ids]
        if not all(folder.exists() for folder in folders):
            _unpack_missing(store, image, limits, timeout_s, watcher)
        return folders


def _unpack_missing(
    store: ImageStore, image: Image, limits: compression.Limits, timeout_s: float, watcher: progress.Progress
) -> None:
    """All layers at once, as far as there are processors: they are independent of each other."""

    def unpacked(pair: tuple[Layer, str]) -> None:
        layer, chain_id = pair
        watcher.step(layer.digest, "unpacking", 0, None)
        _unpack_layer(store, layer, chain_id, title=image.title, limits=limits, timeout_s=timeout_s)
        watcher.step(layer.digest, "done", layer.size_bytes, layer.size_bytes)

    parallel.each(unpacked, list(zip(image.layers, image.chain_ids, strict=True)), title="unpack")


def _unpack_layer(
    store: ImageStore, layer: Layer, chain_id: str, *, title: str, limits: compression.Limits, timeout_s: float
) -> None:
    target = store.layer_path(chain_id)
    what = f"image {title}: layer {layer.digest}"
    if target.exists():
        return
    with store.layer_lock(chain_id, timeout_s=timeout_s) as lock_fd:
        if target.exists():  # somebody else made it while we waited
            return
        with disk.storage_errors(f"{what}: unpacking"), scratch.folder(store.tmp) as work:
            _fill(work, layer, store, what=what, lock_fd=lock_fd, limits=limits, timeout_s=timeout_s)
            work.path.rename(target.parent)
            blobs.sync_folder(store.layers)


def _fill(
    work: scratch.Item,
    layer: Layer,
    store: ImageStore,
    *,
    what: str,
    lock_fd: int,
    limits: compression.Limits,
    timeout_s: float,
) -> None:
    """Unpack into `diff` below the work folder, and have it on the disk."""
    diff = work.path / "diff"
    diff.mkdir()
    diff.chmod(0o755)
    diff_fd = os.open(diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with store.open(layer.digest) as blob:
            job = unpacker.Job(
                what=what,
                blob_fd=blob.fileno(),
                target_fd=diff_fd,
                diff_id=layer.diff_id,
                limits=limits,
                parent_pid=os.getpid(),
                library=_library(),
            )
            # The locks go along: they must outlast the child, even when we are killed.
            try:
                outcome = _run(job, keep_fds=(work.fd, lock_fd), timeout_s=timeout_s)
            except errors.InvalidImage:
                store.check_blob(layer.digest)  # perhaps it is not the image that is wrong, but our copy
                raise
        (work.path / sweep.SIZE_FILE).write_text(str(outcome.size_bytes))
        syscalls.syncfs(diff_fd)
    finally:
        os.close(diff_fd)


def _library() -> str:
    """The folder of the packages that are no part of Python."""
    found = util.find_spec("zstandard")
    assert found is not None, "it is a requirement of the project"
    assert found.origin is not None, "it has a file"
    return str(Path(found.origin).parents[1])


def _run(job: unpacker.Job, *, keep_fds: Sequence[int], timeout_s: float) -> unpacker.Outcome:
    process = subprocess.Popen(
        [sys.executable, "-S", "-m", unpacker.__name__, job.dump()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(job.blob_fd, job.target_fd, *keep_fds),
        # Nothing of the caller's: no start-up file, no module from the current folder.
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    )
    with process:
        try:
            output, trouble = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise errors.LimitExceeded(f"{job.what}: not unpacked within {timeout_s:g} s; raise the bound") from error
        finally:
            process.kill()
    return _read_outcome(job, output, trouble, process.returncode)


def _read_outcome(job: unpacker.Job, output: bytes, trouble: bytes, code: int) -> unpacker.Outcome:
    if code != 0 or not output:
        last = trouble.decode(errors="replace").strip().rpartition("\n")[2]
        raise errors.StorageFailed(f"{job.what}: the unpacking process ended with {code}: {last[:500]}")
    outcome = unpacker.Outcome(**json.loads(output))
    if outcome.error:
        raise _ERRORS[outcome.error](outcome.message)
    return outcome
