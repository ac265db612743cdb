"""The container's root as an overlay mount that exists in its own mount namespace only.

Kernel: Documentation/filesystems/overlayfs. Since Linux 6.5 the file system is configured layer by layer (fsopen);
before, all layers have to go into the one page of options that mount(2) takes.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from runtime import errors, idmap, syscalls
from runtime.spec import Overlay

_OVERLAYFS_MAGIC: Final = 0x794C7630
_MAX_OPTION_BYTES: Final = 255
_MAX_PAGE_BYTES: Final = 4095
_LAYER_BY_LAYER: Final = (6, 5)
_LAYERS_MAY_BE_DETACHED: Final = (6, 15)


def mount(overlay: Overlay, stage: str, user_namespace: int | None = None) -> int:
    """A detached mount of the layers; the caller attaches and closes it. `stage` is a folder to mount on meanwhile.

    With a user namespace the ids on disk are taken for ids inside it: all containers share the layers, whatever their
    ids on the host are, and a writable folder holds the ids that the container sees. The caller then makes files as
    the container's root (`userns.Owner.make_files_as_root`), or the kernel could not use the work folder.
    """
    with contextlib.ExitStack() as stack:
        try:
            if user_namespace is not None:
                overlay = _idmapped(overlay, stage, user_namespace, stack)
            if syscalls.kernel_version() >= _LAYER_BY_LAYER:
                return _mount_layer_by_layer(overlay, stack)
            return _mount_at_once(overlay, stage, stack)
        except OSError as error:
            raise _explained(overlay, error) from error


def needs_own_namespace() -> bool:
    """Whether this kernel's overlays are mounted on the stage, so that only a private mount namespace will do."""
    return syscalls.kernel_version() < _LAYERS_MAY_BE_DETACHED


@contextlib.contextmanager
def own_namespace() -> Iterator[None]:
    """A mount namespace that is private, for as long as it takes; the caller's mounts, as they are now, are in it."""
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        try:
            syscalls.set_propagation("/", syscalls.MS_REC | syscalls.MS_PRIVATE)
            yield
        finally:
            syscalls.setns(before, syscalls.CLONE_NEWNS)
    finally:
        os.close(before)


def _mount_layer_by_layer(overlay: Overlay, stack: contextlib.ExitStack) -> int:
    context = syscalls.fsopen("overlay")
    stack.callback(os.close, context)
    for path in overlay.lower:
        syscalls.fsconfig_string(context, "lowerdir+", _short(path, stack))
    syscalls.fsconfig_string(context, "upperdir", _short(overlay.upper, stack))
    syscalls.fsconfig_string(context, "workdir", _short(overlay.work, stack))
    syscalls.fsconfig_create(context)
    return syscalls.fsmount(context, 0)


def _mount_at_once(overlay: Overlay, stage: str, stack: contextlib.ExitStack) -> int:
    """By descriptors: a layer takes about 17 bytes then, and no character of its path needs an escape."""
    lower = ":".join(_by_descriptor(path, stack) for path in overlay.lower)
    upper, work = _by_descriptor(overlay.upper, stack), _by_descriptor(overlay.work, stack)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if len(options) > _MAX_PAGE_BYTES:
        raise errors.SetupFailed(
            f"overlay: {len(overlay.lower)} layers are more than this kernel takes; put fewer into the image, or run a "
            f"kernel from {_LAYER_BY_LAYER[0]}.{_LAYER_BY_LAYER[1]} on",
            step="overlay",
            errno=errno.E2BIG,
        )
    syscalls.mount("overlay", stage, "overlay", options)
    try:
        return syscalls.open_tree(syscalls.AT_FDCWD, stage, syscalls.OPEN_TREE_CLONE)
    finally:
        syscalls.umount2(stage, syscalls.MNT_DETACH)


def _idmapped(overlay: Overlay, stage: str, user_namespace: int, stack: contextlib.ExitStack) -> Overlay:
    """The same folders by way of idmapped mounts. The upper one and its work folder must be on one mount."""

    def copy(path: str) -> str:
        fd = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
        stack.callback(os.close, fd)
        try:
            syscalls.idmap_mount(fd, user_namespace)
        except OSError as error:
            raise OSError(error.errno, f"{path} {idmap.why_not(error)}") from error
        if needs_own_namespace():
            _put_on(stage, fd)
            stack.callback(syscalls.umount2, stage, syscalls.MNT_DETACH)  # the overlay has copies of its own then
        return f"/proc/self/fd/{fd}"

    lower = tuple(copy(path) for path in overlay.lower)
    common = os.path.commonpath((overlay.upper, overlay.work))
    writable = copy(common)
    upper, work = (f"{writable}/{os.path.relpath(path, common)}" for path in (overlay.upper, overlay.work))
    for path, original in ((upper, overlay.upper), (work, overlay.work)):
        if not os.path.samefile(path, original):
            raise errors.InvalidSpec(f"overlay.upper: {original} must not be a mount below {common}, nor a link")
    return Overlay(lower=lower, upper=upper, work=work)


def _put_on(stage: str, mount: int) -> None:
    target = os.open(stage, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.move_mount(mount, target)
    os.close(target)


def _short(path: str, stack: contextlib.ExitStack) -> str:
    return path if len(os.fsencode(path)) <= _MAX_OPTION_BYTES else _by_descriptor(path, stack)


def _by_descriptor(path: str, stack: contextlib.ExitStack) -> str:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


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
