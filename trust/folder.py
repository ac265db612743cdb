"""The folder that holds what a machine or a person is known by, and whom they believe.

    identity.pem   the private key and the certificates up to a root, in one file, so that both change in one step
    roots.pem      the roots that are believed
    pending.pem    the key of a join that has not been answered; the next try uses it, and is the same join

Two rules. Nobody but the owner reads it: a folder or a key that others can read is refused, and not mended in silence.
And a file is there completely or not at all.
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
            raise NotTrusted(f"{self.path}: {error}; join again with a new token") from error
        if roles and who.role not in roles:
            raise NotTrusted(
                f"{self.identity} is the certificate of {who}, and one of role {' or '.join(roles)} is needed here; "
                "give the right folder"
            )
        return found

    def exists(self) -> bool:
        """Whether somebody has joined with it."""
        return self.identity.exists()

    def save(self, found: Material) -> None:
        """Keeps it. Roots first: a certificate that is there can be used."""
        self.write(ROOTS, found.roots)
        self.write(IDENTITY, found.key + found.chain)
        (self.path / PENDING).unlink(missing_ok=True)

    def pending(self) -> str:
        """The key of a join that has not been answered; empty when there is none."""
        return self.read(PENDING).decode() if (self.path / PENDING).exists() else ""

    def read(self, name: str) -> bytes:
        """A file's content. Raises NotTrusted."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
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
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Readable by its owner only, from the start.
            descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
            with open(descriptor, "wb") as file:  # noqa: PTH123 - it is a descriptor
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path / name)
        except OSError as error:
            raise NotTrusted(f"cannot write {self.path / name}: {error.strerror}") from error
