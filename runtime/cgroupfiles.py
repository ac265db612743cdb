"""Files and folders of cgroups: read, write, make, remove, and wait for what they say.

One rule: a group that is gone reads as nothing, since containers end while somebody looks at them.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import Final

from runtime import errors

PAUSE_S: Final = 0.005
ROUNDS: Final = 200
_WAIT_ROUNDS: Final = 400


def read(path: str) -> str:
    """A file's text; empty when it, or its group, is not there."""
    try:
        with open(path, "rb", buffering=0) as file:
            return (file.readall() or b"").decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.ENODEV:  # the group was removed between open and read
            return ""
        raise


def write(path: str, value: str) -> None:
    """One write(2): the kernel takes a value whole or not at all."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise errors.SetupFailed.at(
            f"cgroup: write {value!r} to {path}", OSError(error.errno, error.strerror)
        ) from None


def make_folder(folder: str) -> None:
    """Make it, with those above. One that is there is taken over when nobody is in it."""
    with errors.step(f"cgroup {folder}: create"):
        try:
            os.mkdir(folder, 0o755)
        except FileNotFoundError:
            os.makedirs(folder, 0o755)
        except FileExistsError:
            if not read(f"{folder}/cgroup.procs").strip():
                return
            raise OSError(errno.EEXIST, "exists and holds processes; use another path, or end them") from None


def remove_empty(folder: str) -> None:
    """Remove a folder, and those in it, where nobody is in them; the others stay."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def remove_tree(folder: str, depth: int) -> None:
    """Remove a folder with those below, `depth` levels at most."""
    for _ in range(ROUNDS):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
        children = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        if children and depth:
            for child in children:
                remove_tree(child, depth - 1)
        else:  # the last process has ended but is not reaped yet
            time.sleep(PAUSE_S)
    raise errors.SetupFailed(
        f"cgroup {folder}: cannot be removed while processes are in it: {read(f'{folder}/cgroup.procs').split()}",
        step="cgroup delete",
        errno=errno.EBUSY,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds, for two seconds at most."""
    for _ in range(_WAIT_ROUNDS):
        if condition():
            return
        time.sleep(PAUSE_S)
    raise errors.SetupFailed(f"{what}: not reached within 2 seconds", step=what, errno=errno.ETIMEDOUT)
