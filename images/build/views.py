"""Layers as one tree that can be read and written by descriptor: an overlay that is mounted nowhere.

Rules. Nobody but the holder of the descriptor reaches the tree, and it is gone with the descriptor, so a `kill -9`
leaves no mount. Every path is resolved as if the tree's root were `/` (`locate`), so no link of an image leads out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import errors
from images.build import layerdiff
from runtime import errors as runtime_errors
from runtime import overlay, paths, spec, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Folders of one step: `layer/diff` becomes the layer, the others are the overlay's."""

    folder: Path

    @property
    def upper(self) -> Path:
        return self.folder / "layer" / "diff"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def empty(self) -> Path:
        """A layer with nothing in it, for images that have none."""
        return self.folder / "empty"

    @property
    def stage(self) -> Path:
        """Where older kernels mount for a moment, in a namespace of their own."""
        return self.folder / "stage"


def prepare(folder: Path, layers: Sequence[Path]) -> Workplace:
    """Make the folders of a step on these layers, bottom to top.

    An overlay shows the mode, owner and time of its highest root, so the new one begins like the one below it.
    """
    place = Workplace(folder=folder)
    for path in (place.upper, place.work, place.empty, place.stage):
        path.mkdir(parents=True)
        path.chmod(0o755)
    if layers:
        _resemble(place.upper, layers[-1])
    return place


def _resemble(new: Path, below: Path) -> None:
    found = below.stat()
    os.chown(new, found.st_uid, found.st_gid)
    new.chmod(stat.S_IMODE(found.st_mode))
    for key in layerdiff.KEPT_XATTRS & frozenset(os.listxattr(below)):
        os.setxattr(new, key, os.getxattr(below, key))
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))


def lower(place: Workplace, layers: Sequence[Path]) -> tuple[str, ...]:
    """The layers as the runtime wants them, top first; never none, which overlayfs would refuse."""
    return tuple(str(path) for path in reversed(layers)) or (str(place.empty),)


@contextlib.contextmanager
def mounted(place: Workplace, layers: Sequence[Path]) -> Iterator[int]:
    """The root of the layers with the writable one on top."""
    wanted = spec.Overlay(lower=lower(place, layers), upper=str(place.upper), work=str(place.work))
    own = overlay.own_namespace() if overlay.needs_own_namespace() else contextlib.nullcontext()
    try:
        with own:
            fd = overlay.mount(wanted, str(place.stage))
    except runtime_errors.ContainerError as error:
        raise errors.StorageFailed(f"the layers cannot be stacked: {error.message}; building needs root") from error
    try:
        yield fd
    finally:
        os.close(fd)


def locate(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open what `path` leads to below the tree's root, links followed inside it; close-on-exec."""
    return syscalls.openat2(root, path.lstrip("/") or ".", flags | os.O_CLOEXEC, resolve=_IN_ROOT)


def locate_unfollowed(root: int, path: str, flags: int = os.O_PATH) -> int:
    """The same, but a link at the end is opened itself."""
    return locate(root, path, flags | os.O_NOFOLLOW)


def real_path(root: int, path: str) -> str:
    """The same path without links, as far as it exists; relative to the root."""
    return paths.without_links(root, path).strip("/")
