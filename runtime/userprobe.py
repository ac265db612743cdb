"""Whether containers can have user namespaces here: tried once, on the very folders that they will be made of.

Kernels, file systems and settings forbid it in many ways, and some only say so when everything is there; so a small
overlay on idmapped folders is mounted, as a container's root is, and let go.
"""

import errno
import os
import shutil
from typing import Final

from runtime import errors, overlay, syscalls, userns
from runtime.spec import Overlay
from runtime.spec.mappings import IdMaps, IdRange

FOLDER: Final = ".probe"
_OVERLAYS_ON_IDMAPPED_LAYERS: Final = (5, 19)


def why_not(layers: str, writable: str, *, first_id: int) -> str:
    """Why containers with layers and writable folders below these two cannot have users of their own; else empty.

    Makes a folder `.probe` in each, and removes it. Forks, so the caller must have one thread.
    """
    kernel = syscalls.kernel_version()
    if kernel < _OVERLAYS_ON_IDMAPPED_LAYERS:
        return f"Linux {kernel[0]}.{kernel[1]} has no overlays on idmapped layers; 5.19 is the first that has"
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(theirs, _try(layers, writable, first_id).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return "" if said == _WELL else said or "the attempt was killed"


_WELL: Final = "well"


def _try(layers: str, writable: str, first_id: int) -> str:
    layer, own = (os.path.join(parent, FOLDER) for parent in (layers, writable))
    folders = (layer, own)
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        _mount(layer, own, _namespace(first_id))
    except (errors.ContainerError, OSError) as error:
        return str(error)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return _WELL


def _namespace(first_id: int) -> userns.Owner:
    ids = (IdRange(inside=0, outside=first_id, size=65536),)
    maps = IdMaps(uids=ids, gids=ids)
    try:
        return userns.Owner(fd=userns.make(maps), maps=maps)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise errors.SetupFailed(
            "this machine allows no more user namespaces; raise user.max_user_namespaces"
        ) from None


def _mount(layer: str, writable: str, owner: userns.Owner) -> None:
    """As a container's first process does it."""
    names = ("upper", "work", "stage")
    for folder in (layer, *(os.path.join(writable, name) for name in names)):
        os.makedirs(folder, 0o755)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.set_propagation("/", syscalls.MS_REC | syscalls.MS_PRIVATE)
    owner.make_files_as_root()
    upper, work, stage = (os.path.join(writable, name) for name in names)
    os.close(overlay.mount(Overlay(lower=(layer,), upper=upper, work=work), stage, owner.fd))
    syscalls.setfsuid(0)
    syscalls.setfsgid(0)
