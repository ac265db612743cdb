"""`registries.yaml`: what a machine knows about registries beyond their names.

::

    registries:
      docker.io:
        mirrors: [mirror.lan:5000, harbor.lan/hub]    # asked first, in order; a path goes before the repository's
      registry.lan:5000:
        insecure: true                                # plain HTTP
      registry.corp.example:
        ca: /etc/orch/corp-ca.pem                     # believed besides the system's, for this registry only
        clientCertificate: /etc/orch/node.pem
        clientKey: /etc/orch/node.key
        tokenRealms: [login.corp.example]             # hosts that may see this registry's credentials
    limits:
      downloads: 4                                    # blobs at once
      uploads: 4
      bandwidth: 50Mi                                 # bytes a second in each direction, all transfers together

The rule: it is read once, strictly, and becomes a value. Nothing has to be said about a registry with a certificate
that the system believes, nor about one on this machine's own loopback, which may speak plain HTTP as with Docker.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images import errors as image_errors
from images import reference
from images.registry import retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from images.registry import strict

DEFAULT_PATH = Path("/etc/orch/registries.yaml")
# The server behind Docker Hub's name; and token services that are known to be their registry's own.
_SERVERS = {reference.DEFAULT_REGISTRY: "registry-1.docker.io"}
_KNOWN_REALMS = {reference.DEFAULT_REGISTRY: "auth.docker.io", "registry.gitlab.com": "gitlab.com"}
_BYTES = re.compile(r"([1-9][0-9]{0,11})(Ki|Mi|Gi|k|M|G)?")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_MIN_BANDWIDTH = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A registry that has what another one has, below `prefix` where that is not empty."""

    host: str
    prefix: str = ""

    def repository(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What is configured for one registry, by the host that stands in image names."""

    mirrors: tuple[Mirror, ...] = ()
    insecure: bool = False
    ca: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    token_realms: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Transfers at once; `bandwidth` in bytes a second, None for none."""

    downloads: int = 4
    uploads: int = 4
    bandwidth: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long others may take, in seconds.

    A connection that brings less than `slow_bytes` in `slow_s` of waiting for it is given up as if it were cut. But a
    registry that has all of an upload may put it together for `finish_s`: over a cloud's storage that is a copy.
    """

    connect_s: float = 10.0
    silence_s: float = 30.0
    document_s: float = 60.0
    slow_s: float = 60.0
    slow_bytes: int = 64 << 10
    finish_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    registries: Mapping[str, Registry] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    retry: retry.Policy = field(default_factory=retry.Policy)
    bounds: Bounds = field(default_factory=Bounds)

    def of(self, host: str) -> Registry:
        return self.registries.get(host, _NOTHING)

    def token_realms(self, host: str) -> frozenset[str]:
        known = {_KNOWN_REALMS[host]} if host in _KNOWN_REALMS else set()
        return self.of(host).token_realms | known


_NOTHING = Registry()


def server_of(host: str) -> str:
    """The host to connect to for the registry of that name."""
    return _SERVERS.get(host, host)


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine's own, by its name alone."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def load(path: Path | None = None) -> Config:
    """Read the file; without a path the usual one, which may be missing. `BadConfiguration` names what is wrong."""
    if path is None and not DEFAULT_PATH.exists():
        return Config()
    from images.registry import strict  # YAML, which most programs never need

    document = strict.read(path or DEFAULT_PATH)
    entries = {} if document is None else document.known(("registries", "limits"))
    return Config(
        registries=_registries(entries["registries"].entries()) if "registries" in entries else {},
        limits=_limits(entries["limits"]) if "limits" in entries else Limits(),
    )


def _registries(values: Mapping[str, strict.Value]) -> Mapping[str, Registry]:
    found: dict[str, Registry] = {}
    for name, value in values.items():
        host = _host(value, name)
        if host in found:
            value.refuse(f"{host} stands twice, since {name} is another name for it; keep one")
        found[host] = _registry(value)
    return found


def _registry(value: strict.Value) -> Registry:
    keys = ("mirrors", "insecure", "ca", "clientCertificate", "clientKey", "tokenRealms")
    entries = value.known(keys)
    files = {key: _file(entries[key]) for key in ("ca", "clientCertificate", "clientKey") if key in entries}
    insecure = entries["insecure"].flag() if "insecure" in entries else False
    if insecure and files:
        value.refuse(f"insecure means plain HTTP, which has no {next(iter(files))}; remove one of the two")
    if "clientKey" in files and "clientCertificate" not in files:
        value.refuse("clientKey without clientCertificate; name both")
    realms = entries["tokenRealms"].items() if "tokenRealms" in entries else ()
    return Registry(
        mirrors=tuple(_mirror(item) for item in entries["mirrors"].items()) if "mirrors" in entries else (),
        insecure=insecure,
        ca=files.get("ca"),
        client_certificate=files.get("clientCertificate"),
        client_key=files.get("clientKey"),
        token_realms=frozenset(_host(item, item.text()).lower() for item in realms),
    )


def _limits(value: strict.Value) -> Limits:
    entries = value.known(("downloads", "uploads", "bandwidth"))
    usual = Limits()
    return Limits(
        downloads=entries["downloads"].number(low=1, high=64) if "downloads" in entries else usual.downloads,
        uploads=entries["uploads"].number(low=1, high=64) if "uploads" in entries else usual.uploads,
        bandwidth=_bandwidth(entries["bandwidth"]) if "bandwidth" in entries else None,
    )


def _bandwidth(value: strict.Value) -> int:
    match = _BYTES.fullmatch(value.text())
    rate = int(match[1]) * _FACTORS[match[2] or ""] if match else 0
    if rate < _MIN_BANDWIDTH:
        value.refuse(f"expected bytes a second from {_MIN_BANDWIDTH >> 10}Ki on, such as 50Mi")
    return rate


def _mirror(value: strict.Value) -> Mirror:
    host, _, prefix = value.text().partition("/")
    try:
        # The grammar of image names is the one for both parts; the rest stands for any repository.
        reference.parse(f"{_host(value, host)}/{prefix or 'any'}")
    except image_errors.InvalidReference as error:
        value.refuse(f"expected host[:port][/path], found {value.text()!r:.100}: {error}")
    return Mirror(host=host, prefix=prefix)


def _host(value: strict.Value, text: str) -> str:
    if not reference.is_registry(text):
        value.refuse(f"expected host[:port], found {text!r:.100}; write it without https:// and without a path")
    return reference.DEFAULT_REGISTRY if text == "index.docker.io" else text


def _file(value: strict.Value) -> Path:
    path = Path(value.text())
    if not path.is_absolute():
        value.refuse("expected an absolute path")
    if not path.is_file():
        value.refuse(f"there is no file {path}")
    return path
