"""What steps have made before: from the key of a step to its layer; and the folders of `--mount=type=cache`.

::

    ROOT/build/steps/HEX      {"layer": {…}, "created": …}: what the step with this key made, if it changed a file
    ROOT/build/mounts/HEX/N   a folder that keeps what RUN writes to it; HEX is the digest of its id

Rules. A key is a digest over everything that decides over the result, so an entry is never out of date; one whose layer
the store has lost is forgotten when it is met. Entries and folders appear whole, and a folder is used under its lock
only. An id is never part of a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from images import disk, documents, errors, image, locks, scratch, streams, syscalls
from images.build import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from images.image import Layer
    from images.store import ImageStore

VERSION = 2
_MAX_ENTRY_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 3600.0
_MAX_PRIVATE = 64
_MAX_CLEARED = 100  # times that a prune may come between making a folder and locking it
_STEPS_KEPT = 10_000


def key(*parts: object) -> str:
    """The key of a step: a digest over what decides over it, in order; every part is told from its neighbour."""
    text = json.dumps([VERSION, *parts], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a step made: a layer, or none when it changed no file; and when (RFC 3339)."""

    layer: Layer | None
    created: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The cache of a store. Without `reads` nothing is found in it, and what is made replaces what is there."""

    store: ImageStore
    reads: bool = True

    @property
    def _folder(self) -> Path:
        return self.store.root / "build"

    # Steps ------------------------------------------------------------------------------------------------------------

    def find(self, step: str, *, touch: bool = True) -> Made | None:
        """What a step made, when the store still has it. `touch` notes that somebody asked."""
        if not self.reads:
            return None
        path = self._path("steps", step)
        made = _read(path)
        if made is None or not (made.layer is None or self.store.has(made.layer.digest)):
            path.unlink(missing_ok=True)
            return None
        if touch:
            with contextlib.suppress(OSError):
                os.utime(path)  # for `forget_lost`, which begins with what nobody asked for
        return made

    def keep(self, step: str, made: Made) -> None:
        """Remember what a step made."""
        names = ("digest", "diff_id", "size_bytes", "media_type")
        layer = None if made.layer is None else {name: getattr(made.layer, name) for name in names}
        self._write("steps", step, {"layer": layer, "created": made.created})

    def forget_lost(self) -> int:
        """Remove entries whose layers are gone, and the oldest of too many; returns how many. For a prune."""
        count = 0
        left: list[Path] = []
        for path in self._oldest_first("steps"):
            if self.find(path.name, touch=False) is None:
                count += 1
            else:
                left.append(path)
        for path in left[: max(0, len(left) - _STEPS_KEPT)]:
            path.unlink(missing_ok=True)
            count += 1
        return count

    def clear(self) -> None:
        """Forget everything, the folders of mounts included but for those that a build is using."""
        for path in self._oldest_first("steps"):
            path.unlink(missing_ok=True)
        for folder in (self._folder / "mounts").glob("*/*"):
            with _opened(folder) as fd, scratch.folder(self.store.tmp) as trash:
                if fd is not None and locks.attempt(fd):
                    # Whoever waits for the lock sees that the name means another folder now, and makes it.
                    folder.rename(trash.path / "old")

    # Mounts -----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def mount(
        self,
        name: str,
        *,
        sharing: str,
        fill: Callable[[Path], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Path]:
        """A folder for a cache mount; nobody else writes to it unless it is `shared`.

        `fill` says what a new one begins with; one that cannot be filled is not there. `check` is asked while
        another build has the folder: what it raises ends the wait.
        """
        parent = self._folder / "mounts" / hashlib.sha256(name.encode()).hexdigest()
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        what = f"cache mount {name!r:.100}"
        for number in range(_MAX_PRIVATE if sharing == "private" else 1):
            folder = parent / str(number)
            for _ in range(_MAX_CLEARED):
                self._make(folder, fill)
                with _opened(folder) as fd:
                    if fd is None:
                        continue
                    if sharing == "private" and not locks.attempt(fd):
                        break
                    locks.wait(fd, shared=sharing == "shared", timeout_s=_LOCK_TIMEOUT_S, what=what, check=check)
                    if _is_still(folder, fd):
                        yield folder
                        return
        raise errors.Busy(f"{what}: all of its folders are in use, or are removed as soon as they are made; try again")

    def _make(self, folder: Path, fill: Callable[[Path], None]) -> None:
        """Make the folder of a cache if there is none: it gets its name once all that it begins with is there."""
        if folder.exists():
            return
        with scratch.folder(self.store.tmp) as item:
            new = item.path / "new"
            new.mkdir()
            new.chmod(0o755)
            fill(new)
            with contextlib.suppress(FileExistsError):  # another build was first
                syscalls.rename_new(new, folder)

    # Files ------------------------------------------------------------------------------------------------------------

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / kind / name

    def _write(self, kind: str, name: str, entry: dict[str, Any]) -> None:
        path = self._path(kind, name)
        with disk.storage_errors(f"the build cache {self._folder}"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with scratch.file(self.store.tmp) as item:
                # Not flushed to the disk: after a power cut an empty file is a step that is carried out again.
                streams.write_all(item.fd, json.dumps(entry).encode())
                item.path.replace(path)

    def _oldest_first(self, kind: str) -> list[Path]:
        folder = self._folder / kind
        found: list[tuple[int, Path]] = []
        for path in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # a build has replaced or forgotten it
                found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]


def _read(path: Path) -> Made | None:
    """An entry; None where there is none, and for what something else has written: the step is carried out again."""
    try:
        with path.open("rb") as file:
            entry = documents.parse(file.read(_MAX_ENTRY_BYTES), what=str(path))
        if "layer" not in entry.fields:
            return None
        return Made(layer=_layer(entry.child("layer")) if "layer" in entry else None, created=entry.text("created"))
    except (FileNotFoundError, errors.InvalidImage):
        return None


def _layer(entry: documents.Object) -> Layer:
    return image.Layer(
        digest=entry.digest("digest"),
        diff_id=entry.digest("diff_id"),
        size_bytes=entry.integer("size_bytes"),
        media_type=entry.text("media_type"),
    )


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """A folder by its descriptor, or None where there is none any more."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    with descriptors.closing(fd):
        yield fd


def _is_still(folder: Path, fd: int) -> bool:
    """Whether the name means the open folder, now that it is locked: before, a prune may have cleared it."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
