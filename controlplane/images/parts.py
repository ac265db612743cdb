"""Blobs on their way into the cluster: what has come of each is kept, so that a cut upload goes on where it was.

::

    ROOT/HEX        what has come; its size is where to go on

The rule: a part becomes a blob only through `ImageStore.adopt`, which digests every byte of it. One that turns out to
be another blob is thrown away as a whole: nobody knows which of its bytes are wrong.
"""

import contextlib
import time
from pathlib import Path

from controlplane.images.files import Shared
from images import digest, disk, errors
from images.store import ImageStore

FORGOTTEN_AFTER_S = 24 * 3600.0
"""A part that nothing was added to for this long is not gone on with any more."""


class Parts:
    """Below `folder`, which is on the file system of the store. Everything here blocks: call it in a thread."""

    def __init__(self, folder: Path, store: ImageStore) -> None:
        self._folder = folder
        self._store = store
        with disk.storage_errors(f"opening the uploads {folder}"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def offset(self, name: str) -> int:
        """Bytes of the blob that have come."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, name: str, offset: int) -> Shared:
        """The part, ready to be written from there on. What came behind it is cut off."""
        with disk.storage_errors(f"opening the upload of {name}"):
            path = self._path(name)
            path.touch(mode=0o600)
            file = path.open("r+b")
            file.truncate(offset)
            file.seek(offset)
        return Shared(file)

    def finish(self, name: str, size_bytes: int) -> None:
        """Make it a blob. Raises `DigestMismatch`."""
        try:
            self._store.adopt(self._path(name), name, size_bytes)
        except errors.DigestMismatch:
            self._path(name).unlink(missing_ok=True)
            raise

    def size_bytes(self) -> int:
        """What all of them take."""
        return disk.folder_bytes(self._folder)

    def sweep(self) -> None:
        """Throw away those that nobody goes on with."""
        for path in list(self._folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # it has just become a blob
                if time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_S:
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / digest.hex_of(name)
