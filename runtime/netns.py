"""Network namespaces that outlive the containers in them: each is pinned by a bind mount on a file.

A container joins one by its path, so a container that is started again in place keeps its address.
"""

import contextlib
import errno
import os

from runtime import errors, firstprocess, syscalls


def create(path: str) -> None:
    """Make a namespace with `lo` up and pin it at `path`. Leaves the calling process inside it: fork first."""
    with errors.step(f"network namespace {path}"):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    try:
        with errors.step(f"network namespace {path}"):
            syscalls.unshare(syscalls.CLONE_NEWNET)
            firstprocess.bring_up("lo")
            syscalls.bind("/proc/self/ns/net", path)
    except BaseException:
        os.unlink(path)
        raise


def delete(path: str) -> None:
    """Unpin the namespace; it ends with the last process in it. Nothing to delete is no error."""
    with errors.step(f"network namespace {path}"):
        try:
            syscalls.umount2(path, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:  # no mount point, no file
                raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
