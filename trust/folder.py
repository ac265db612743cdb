"""The folder that holds what a machine or a person is known by, and whom they believe.

    identity.pem   the private key and the certificates up to a root, in one file, so that both change in one step
    roots.pem      the roots that are believed
    pending.pem    the key of a join that has not come to its end; the next try uses it, and is the same join

Three rules. Nobody but the owner reads it: a folder or a key that others can read is refused, and not mended in
silence. A file is there completely or not at all. And a certificate that is replaced can be used until the new one can:
whoever is killed in between has the one or the other.
"""

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trust.core import certificate
from trust.core.identity import Identity, Malformed, Role

IDENTITY, ROOTS, PENDING = "identity.pem", "roots.pem", "pending.pem"
MAX_FILE_BYTES = 4 * 1024 * 1024
"""The first records of a cluster that is founded with nodes; all else is small."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY_END = b"-----END PRIVATE KEY-----\n"


class NotTrusted(Exception):  # noqa: N818 - what is so
    """The folder does not hold what is needed; the text names the file and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What TLS needs, as PEM. `repr` leaves the key out."""

    key: bytes
    chain: bytes
    roots: bytes
    facts: certificate.Facts

    @property
    def identity(self) -> Identity:
        """Whose it is."""
        return self.facts.identity

    def __repr__(self) -> str:
        return f"Material({self.identity})"


def material(key: bytes, chain: bytes, roots: bytes) -> Material:
    """Puts it together. Raises Malformed."""
    facts = certificate.read(chain)
    certificate.read(roots)
    if not facts.identity.cluster or _KEY_END not in key:
        raise Malformed("it is no private key and certificate of a member")
    return Material(key=key, chain=chain, roots=roots, facts=facts)


class Folder:
    """A folder of this kind. It is made when something is first written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def identity(self) -> Path:
        """The file with key and certificate, as OpenSSL loads a chain."""
        return self.path / IDENTITY

    def load(self, *roles: Role) -> Material:
        """What is there. `roles`: those that will do. Raises NotTrusted."""
        text, roots = self.read(IDENTITY), self.read(ROOTS)
        key, end, chain = text.partition(_KEY_END)
        try:
            found = material(key + end, chain, roots)
            who = found.identity
        except Malformed as error:
            raise NotTrusted(f"{self.identity}: {error}; remove it, and join again with a new token") from error
        if roles and who.role not in roles:
            raise NotTrusted(
                f"{self.identity} is the certificate of {who}, and one of role {' or '.join(roles)} is needed here; "
                "give the right folder"
            )
        return found

    def exists(self) -> bool:
        """Whether somebody has joined with it."""
        return self.identity.exists()

    def is_empty(self) -> bool:
        """Whether nothing was founded or joined with it: the key of a join that was not answered is nothing."""
        nothing = (PENDING, f".{PENDING}.")
        return not self.path.exists() or all(one.name.startswith(nothing) for one in self.path.iterdir())

    def save(self, found: Material) -> None:
        """Keeps it, and no key that waits."""
        self.keep(found)
        self.end_join()

    def keep(self, found: Material) -> None:
        """Keeps it, with the key of a join that is still to be ended.

        Roots first, beside those of the certificate that is there: whichever of the two is there can be used.
        """
        before = self._believed()
        both = found.roots if before == found.roots else found.roots + before
        self.write(ROOTS, both)
        self.write(IDENTITY, found.key + found.chain)
        if both != found.roots:
            self.write(ROOTS, found.roots)

    def end_join(self) -> None:
        """The join has come to its end: its key waits for nothing any more."""
        (self.path / PENDING).unlink(missing_ok=True)

    def pending(self) -> str:
        """The key of a join that has not come to its end; empty when there is none."""
        return self.read(PENDING).decode() if (self.path / PENDING).exists() else ""

    def read(self, name: str) -> bytes:
        """A file's content. Raises NotTrusted."""
        path = self.path / name
        try:
            self._check_owners_alone()
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & _OTHERS:
                    raise NotTrusted(f"{path} can be read by others than its owner; `chmod 600 {path}`, and join anew")
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise NotTrusted(f"{path} is not there: this machine has not joined a cluster") from None
        except OSError as error:
            raise NotTrusted(f"cannot read {path}: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:  # the beginning of it would be something else
            most = f"{MAX_FILE_BYTES // 2**20} MiB"
            raise NotTrusted(f"{path} has more than {most}: it is none of ours; remove it, and join anew")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Puts a file there in one step, which a power cut does not undo. Raises NotTrusted."""
        try:
            self._make()
            self._check_owners_alone()
            # Readable by its owner only, from the start.
            descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123 - it is a descriptor
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self.path / name)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
            _flush(self.path)
        except OSError as error:
            raise NotTrusted(f"cannot write {self.path / name}: {error.strerror}") from error

    def _make(self) -> None:
        """The folder and those that it is in, also after a power cut."""
        missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in missing:
            _flush(one.parent)

    def _check_owners_alone(self) -> None:
        """Raises NotTrusted when others may read the folder, or write into it; OSError when it is not there."""
        if self.path.stat().st_mode & _OTHERS:
            raise NotTrusted(f"{self.path} is open to others than its owner; `chmod 700 {self.path}`, and try again")

    def _believed(self) -> bytes:
        """The roots of the certificate that is there; nothing where there is none that can be used."""
        try:
            return self.load().roots
        except NotTrusted:
            return b""


def _flush(folder: Path) -> None:
    """Puts a name that is in the folder on the disk: only the folder's own fsync does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
