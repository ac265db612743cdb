"""Credentials as Docker keeps them: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, and credential helpers.

Rules. What others wrote into the file stays in it. The file is replaced as a whole and only its owner may read it. And
where a keychain is configured no secret is written beside it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images import documents, locks, reference
from images import errors as image_errors
from images.registry import errors, helpers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_VERSIONS = {"", "v1", "v2"}
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user with a password, or an identity token that a token service once gave for them."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, …)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    folder = environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


class DockerConfig:
    """One `config.json`; it is read anew at each question, since a login may come at any time."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()

    async def find(self, host: str) -> Credentials | None:
        """What is kept for the registry of that name: by its own helper, the keychain, or in the file itself."""
        document = self._read()
        helper = _helper(document, host)
        if helper:
            with _as_configuration():
                found = await helpers.get(helper, _key(host))
            if found:
                return _from_helper(*found)
        with _as_configuration():
            return _from_auths(document, host)

    async def login(self, host: str, credentials: Credentials) -> str:
        """Keep the credentials; returns where: a helper's program or the file."""
        helper = _helper(self._read(), host)
        if helper:
            await helpers.store(helper, _key(host), credentials)
        with self._changing() as content:
            auths = _table(content, "auths", self.path)
            _forget(auths, host)
            auths[_key(host)] = {} if helper else _entry(credentials)
        return f"docker-credential-{helper}" if helper else str(self.path)

    async def logout(self, host: str) -> bool:
        """Forget what is kept; False when nothing was."""
        helper = _helper(self._read(), host)
        had = bool(helper and await helpers.get(helper, _key(host)))
        if helper and had:
            await helpers.erase(helper, _key(host))
        if not self.path.exists():
            return had
        with self._changing() as content:
            return _forget(_table(content, "auths", self.path), host) or had

    def _read(self) -> documents.Object:
        try:
            data = documents.read_bounded(self.path)
        except FileNotFoundError:
            data = b"{}"
        except OSError as error:
            raise errors.BadConfiguration(f"{self.path}: {error.strerror}; make it readable for you") from error
        with _as_configuration():
            return documents.parse(data or b"{}", what=str(self.path))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The whole content, written back after the block; two logins at once both count."""
        # A link stays a link: some people keep this file elsewhere.
        path = self.path.resolve()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _folder_lock(path.parent):
                content = dict(self._read().fields)
                yield content
                _replace(path, json.dumps(content, indent="\t", ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise errors.BadConfiguration(f"{self.path}: {error.strerror}; make it writable for you") from error


@contextlib.contextmanager
def _as_configuration() -> Iterator[None]:
    try:
        yield
    except image_errors.InvalidImage as error:
        raise errors.BadConfiguration(f"{error}; repair the file") from error


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        locks.wait(fd, shared=False, timeout_s=_LOCK_TIMEOUT_S, what=f"the folder {folder}")
        yield
    finally:
        os.close(fd)


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _key(host: str) -> str:
    """The name under which Docker keeps a registry."""
    return _HUB_KEY if host == reference.DEFAULT_REGISTRY else host


def _host_of(key: str) -> str:
    """The registry that a key of `auths` means; the empty text when it means a part of one."""
    bare = key.partition("://")[2] or key
    host, _, path = bare.partition("/")
    if path.strip("/") not in _VERSIONS:
        return ""
    return reference.DEFAULT_REGISTRY if host in _HUB_NAMES else host


def _helper(document: documents.Object, host: str) -> str:
    with _as_configuration():
        special = document.text_map("credHelpers")
        return special.get(_key(host)) or special.get(host) or document.text("credsStore", "")


def _from_helper(user: str, secret: str) -> Credentials:
    return Credentials(identity_token=secret) if user == helpers.IDENTITY else Credentials(user=user, password=secret)


def _from_auths(document: documents.Object, host: str) -> Credentials | None:
    auths = document.child("auths")
    keys = sorted((key for key in auths.fields if _host_of(key) == host), key=lambda key: key != _key(host))
    return next(filter(None, (_from_entry(auths.child(key)) for key in keys)), None)


def _from_entry(entry: documents.Object) -> Credentials | None:
    token = entry.text("identitytoken", "")
    if token:
        return Credentials(identity_token=token)
    encoded = entry.text("auth", "")
    if not encoded:
        user, password = entry.text("username", ""), entry.text("password", "")
        return Credentials(user=user, password=password) if user else None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        user = colon = password = ""
    if not colon or not user:
        entry.refuse("auth", "is not user:password in base64")
    return Credentials(user=user, password=password.rstrip("\0"))


def _entry(credentials: Credentials) -> dict[str, str]:
    if credentials.identity_token:
        return {"identitytoken": credentials.identity_token}
    return {"auth": credentials.basic.removeprefix("Basic ")}


def _table(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.setdefault(key, {})
    if not isinstance(value, dict):
        raise errors.BadConfiguration(f"{path}: {key}: expected an object; repair the file")
    return value


def _forget(auths: dict[str, Any], host: str) -> bool:
    gone = [key for key in auths if _host_of(key) == host]
    for key in gone:
        del auths[key]
    return bool(gone)
