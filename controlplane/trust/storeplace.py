"""Where an instance finds the store, and what the member of etcd beside it is shown with, in the instance's folder.

    store.json     the members' addresses, and how the one beside this instance is started
    store.pem      what the store knows this instance by
    etcd/          key, certificate and roots of the member beside it

The rule: an instance is started with this folder and nothing else about the store, so that addresses that it has learnt
while it ran are there when it starts again.
"""

import re
from urllib.parse import urlsplit

from controlplane.core.trust import etcd_flags
from trust.folder import Folder, NotTrusted

FILE = "store.json"
MEMBER_FOLDER = "etcd"
KEY, CERTIFICATE, ROOTS = "key.pem", "cert.pem", "roots.pem"

_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----\n?", re.DOTALL)


def save(folder: Folder, place: etcd_flags.Place) -> None:
    """Keeps where the store is. Raises NotTrusted."""
    folder.write(FILE, place.text())


def load(folder: Folder) -> etcd_flags.Place:
    """Where the store is. Raises NotTrusted."""
    try:
        return etcd_flags.place(folder.read(FILE))
    except ValueError as error:
        raise NotTrusted(f"{folder.path / FILE} is damaged: {error}; say where etcd is with --etcd") from error


def known(folder: Folder) -> bool:
    """Whether the folder says where the store is."""
    return (folder.path / FILE).exists()


def save_member(folder: Folder, key: bytes, chain: bytes, roots: bytes) -> None:
    """What etcd takes as --cert-file, --key-file and --trusted-ca-file, and the same again for its peers."""
    own = member_folder(folder)
    own.write(KEY, key)
    own.write(ROOTS, roots)
    own.write(CERTIFICATE, chain)


def member_folder(folder: Folder) -> Folder:
    """The one of the member beside an instance."""
    return Folder(folder.path / MEMBER_FOLDER)


def identity(folder: Folder, name: str) -> tuple[bytes, bytes]:
    """Key and certificates of a file that holds both. Raises NotTrusted."""
    text = folder.read(name)
    key = _PRIVATE_KEY.search(text)
    if key is None:
        raise NotTrusted(f"{folder.path / name} holds no private key; join anew")
    return key.group(), text[: key.start()] + text[key.end() :]


def endpoint(url: str) -> str:
    """`https://10.0.0.1:2379` → `10.0.0.1:2379`. Raises NotTrusted."""
    wrong = NotTrusted(f"{url!r} is not https://HOST:PORT of a member of etcd")
    try:
        parts = urlsplit(url)
        is_right = parts.scheme == "https" and parts.hostname and parts.port and parts.path in {"", "/"}
    except ValueError as error:  # the port is no number, or too large
        raise wrong from error
    if not is_right or "@" in parts.netloc:
        raise wrong
    return parts.netloc
