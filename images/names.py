"""The names of images: `index.json` of the store's OCI layout.

The rule: a change is read, made and written back under the lock `names`, and the file is replaced as a whole; a
reader needs no lock and sees either the old or the new list. Other tools read the same file
(`skopeo inspect oci:ROOT:docker.io/library/web:latest`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from images import blobs, disk, documents, errors, layout, locks, manifest

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Collection
    from pathlib import Path

MAX_NAMES = manifest.MAX_INDEX_ENTRIES
_LOCK_TIMEOUT_S = 30.0


class Names:
    """Full tagged names (`docker.io/library/web:latest`) to descriptors of manifests or indexes."""

    def __init__(self, path: Path, *, lock: Path, area: Path) -> None:
        self._path = path
        self._lock = lock
        self._area = area
        with self._locked():
            if not path.exists():
                self._write({})

    def read(self) -> dict[str, manifest.Descriptor]:
        """Every name with what it stands for, as one consistent snapshot."""
        with disk.storage_errors(f"reading the names {self._path}"):
            data = documents.read_bounded(self._path)
        index = manifest.parse(data, what=str(self._path), media_type=manifest.OCI_INDEX)
        assert isinstance(index, manifest.Index), "announced as an index, so read as one"
        # An entry without a name was put there by another tool; it names nothing here, so it keeps nothing alive.
        return {name: entry for entry in index.manifests if (name := entry.annotation(layout.REF_NAME))}

    def put(self, name: str, entry: manifest.Descriptor) -> None:
        with self._locked():
            entries = self.read()
            entries[name] = replace(entry, annotations=((layout.REF_NAME, name),))
            if len(entries) > MAX_NAMES:
                raise errors.LimitExceeded(f"{self._path}: more than {MAX_NAMES} names; remove some images")
            self._write(entries)

    def drop(self, name: str) -> None:
        self.drop_all((name,))

    def drop_all(self, names: Collection[str]) -> None:
        """All of them, or none: `NotFound` when one is not there."""
        if not names:
            return
        with self._locked():
            entries = self.read()
            missing = [name for name in names if entries.pop(name, None) is None]
            if missing:
                where = f"{self._path.parent}; `orchctl image ls` lists the names"
                raise errors.NotFound(f"image {', '.join(missing)} is not in {where}")
            self._write(entries)

    def _locked(self) -> contextlib.AbstractContextManager[int]:
        return locks.held(self._lock, timeout_s=_LOCK_TIMEOUT_S, what=f"the list of names {self._path}")

    def _write(self, entries: dict[str, manifest.Descriptor]) -> None:
        ordered = tuple(entries[name] for name in sorted(entries))
        index = manifest.Index(media_type=manifest.OCI_INDEX, manifests=ordered)
        blobs.replace_file(self._path, index.as_bytes(), self._area)
