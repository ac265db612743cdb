"""The tar file that a guest's root file system is unpacked from.

One rule: a name is written once, whoever yields it again.
"""

import io
import tarfile

from tests.vm import files


class Payload:
    """The guest's root file system, while it is being written."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._names: set[str] = set()

    def add(self, found: files.Files) -> None:
        """Files of this machine."""
        for path, name in found:
            if self._is_new(name):
                self._archive.add(path, name, recursive=False)

    def add_text(self, name: str, text: str, *, mode: int = 0o644) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(text.encode()), mode
        self._add(entry, text.encode())

    def add_folder(self, name: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
        self._add(entry)

    def add_link(self, name: str, target: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._add(entry)

    def _add(self, entry: tarfile.TarInfo, content: bytes = b"") -> None:
        if self._is_new(entry.name):
            self._archive.addfile(entry, io.BytesIO(content))

    def _is_new(self, name: str) -> bool:
        known = name in self._names
        self._names.add(name)
        return not known
