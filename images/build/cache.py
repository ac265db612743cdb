"""What steps have made before: from the key of a step to its layer; and the folders of `--mount=type=cache`.

::

    ROOT/build/steps/HEX      {"layer": {…}, "created": …}: what the step with this key made, if it changed a file
    ROOT/build/mounts/HEX/N   a folder that keeps what RUN writes to it; HEX is the digest of its id

Rules. A key is a digest over everything that decides over the result, so an entry is never out of date; one whose layer
the store has lost is forgotten when it is met. Entries are files that appear whole. An id is never part of a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from images import blobs, errors, image, locks, scratch
from images.build import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images.image import Layer
    from images.store import ImageStore

VERSION = 1
_MAX_ENTRY_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 3600.0
_MAX_PRIVATE = 64
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

    def find(self, step: str) -> Made | None:
        """What a step made, when the store still has it."""
        entry = self._read("steps", step)
        if entry is None:
            return None
        made = Made(layer=image.Layer(**entry["layer"]) if entry["layer"] else None, created=entry["created"])
        if made.layer is None or self.store.has(made.layer.digest):
            return made
        self._path("steps", step).unlink(missing_ok=True)
        return None

    def keep(self, step: str, made: Made) -> None:
        """Remember what a step made."""
        names = ("digest", "diff_id", "size_bytes", "media_type")
        layer = None if made.layer is None else {name: getattr(made.layer, name) for name in names}
        self._write("steps", step, {"layer": layer, "created": made.created})

    def forget_lost(self) -> int:
        """Remove entries whose layers are gone, and the oldest of too many; returns how many. For a prune."""
        count = 0
        for path in self._oldest_first("steps"):
            if self.find(path.name) is None:
                count += 1
        paths = self._oldest_first("steps")
        for path in paths[: max(0, len(paths) - _STEPS_KEPT)]:
            path.unlink(missing_ok=True)
            count += 1
        return count

    def clear(self) -> None:
        """Forget everything, the folders of mounts included but for those that a build is using."""
        scratch.remove(self._folder / "steps")
        mounts = self._folder / "mounts"
        for folder in mounts.glob("*/*"):
            with descriptors.closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
                if locks.attempt(fd):
                    scratch.remove(folder)

    # Mounts -----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def mount(self, name: str, *, sharing: str) -> Iterator[tuple[Path, bool]]:
        """A folder for a cache mount, and whether it is new; nobody else writes to it unless it is `shared`."""
        parent = self._folder / "mounts" / hashlib.sha256(name.encode()).hexdigest()
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(_MAX_PRIVATE if sharing == "private" else 1):
            folder = parent / str(number)
            is_new = _make(folder)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if self._lock(fd, sharing, name):
                    yield folder, is_new
                    return
            finally:
                os.close(fd)
        raise errors.Busy(f"cache mount {name!r:.100}: all of its {_MAX_PRIVATE} private folders are in use")

    def _lock(self, fd: int, sharing: str, name: str) -> bool:
        if sharing == "private":
            return locks.attempt(fd)
        what = f"cache mount {name!r:.100}"
        locks.wait(fd, shared=sharing == "shared", timeout_s=_LOCK_TIMEOUT_S, what=what)
        return True

    # Files ------------------------------------------------------------------------------------------------------------

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / kind / name

    def _read(self, kind: str, name: str) -> dict[str, Any] | None:
        if not self.reads:
            return None
        path = self._path(kind, name)
        try:
            with path.open("rb") as file:
                entry = json.loads(file.read(_MAX_ENTRY_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:
            path.unlink(missing_ok=True)  # written by something else; the step is carried out again
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # for `forget_lost`, which begins with what nobody asked for
        found: dict[str, Any] = entry
        return found

    def _write(self, kind: str, name: str, entry: dict[str, Any]) -> None:
        path = self._path(kind, name)
        with blobs.storage_errors(f"the build cache {self._folder}"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self.store.tmp / f"{name}.{kind}.{os.getpid()}.{time.monotonic_ns()}"
            # Not flushed to the disk: after a power cut an empty file is a step that is carried out again.
            temporary.write_text(json.dumps(entry))
            temporary.replace(path)

    def _oldest_first(self, kind: str) -> list[Path]:
        folder = self._folder / kind
        return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns) if folder.is_dir() else []


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o755)
    except FileExistsError:
        return False
    folder.chmod(0o755)
    return True
