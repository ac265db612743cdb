"""The container's root as an overlay mount that exists in its own mount namespace only.

Kernel: Documentation/filesystems/overlayfs. The file system is configured option by option (fsopen), since
mount(2) has one page for all options and 40 layers fill it.
"""

import contextlib
import errno
import os
from typing import Final

from runtime import errors, syscalls
from runtime.spec import Overlay

_OVERLAYFS_MAGIC: Final = 0x794C7630
_MAX_OPTION_BYTES: Final = 255


def mount(overlay: Overlay) -> int:
    """A detached mount of the layers; the caller attaches and closes it."""
    with contextlib.ExitStack() as stack:
        context = syscalls.fsopen("overlay")
        stack.callback(os.close, context)
        try:
            _configure(context, overlay, stack)
            return syscalls.fsmount(context, 0)
        except OSError as error:
            raise _explained(overlay, error) from error


def _configure(context: int, overlay: Overlay, stack: contextlib.ExitStack) -> None:
    lower = [_short(path, stack) for path in overlay.lower]
    try:
        for path in lower:
            syscalls.fsconfig_string(context, "lowerdir+", path)
    except OSError as error:
        if error.errno != errno.EINVAL or not _is_unknown_option(context):
            raise
        # Before Linux 6.5 the layers are one option of 255 bytes; by descriptor a layer takes about 17 of them.
        syscalls.fsconfig_string(context, "lowerdir", ":".join(_by_descriptor(path, stack) for path in overlay.lower))
    syscalls.fsconfig_string(context, "upperdir", _short(overlay.upper, stack))
    syscalls.fsconfig_string(context, "workdir", _short(overlay.work, stack))
    syscalls.fsconfig_create(context)


def _short(path: str, stack: contextlib.ExitStack) -> str:
    return path if len(os.fsencode(path)) <= _MAX_OPTION_BYTES else _by_descriptor(path, stack)


def _by_descriptor(path: str, stack: contextlib.ExitStack) -> str:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


def _is_unknown_option(context: int) -> bool:
    """Whether the kernel's own words on the context say that it does not know the option."""
    return "Unknown parameter" in messages(context)


def messages(context: int) -> str:
    """What the kernel says about a file system context (fsopen(2): one message a read)."""
    lines = []
    for _ in range(16):
        try:
            lines.append(os.read(context, 4096).decode(errors="replace").strip())
        except OSError:
            break
    return "; ".join(lines)


def _explained(overlay: Overlay, error: OSError) -> errors.SetupFailed:
    for path in (*overlay.lower, overlay.upper, overlay.work):
        if not os.path.isdir(path):
            return errors.SetupFailed(f"overlay: {path} is not a folder", step="overlay", errno=errno.ENOTDIR)
    folder = os.open(overlay.upper, os.O_PATH | os.O_CLOEXEC)
    try:
        on_overlay = syscalls.fstatfs_type(folder) == _OVERLAYFS_MAGIC
    finally:
        os.close(folder)
    if on_overlay:
        message = (
            f"overlay: the upper folder {overlay.upper} is itself on an overlay file system, which the kernel refuses; "
            "put the state folder on a disk or tmpfs"
        )
        return errors.SetupFailed(message, step="overlay", errno=error.errno or 0)
    return errors.SetupFailed.at(f"overlay with upper folder {overlay.upper}", error)
