"""Who may be asked for a token, and who may see credentials while that is done.

A registry names the address of its token service itself, so a hostile one could name its own, and collect passwords
(CVE-2020-15157), or the address of a machine that only we reach. The rule: credentials go to the registry's own
origin, or to a host that the configuration allows for this registry; everybody else is asked without a name, and never
over plain HTTP on behalf of a registry that speaks TLS.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}
# RFC 1123, 2.1, with the underscore that some networks use; whatever else is no name that a resolver could be asked.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?")


class Trust(enum.Enum):
    CREDENTIALS = "may see credentials"
    ANONYMOUS = "is asked without credentials"
    REFUSED = "is not asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a URL leads; two URLs with equal origins are one server."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def origin(url: str) -> Origin | None:
    """The origin of a http(s) URL; None for another scheme, no host, a user, or what is no name or port."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or "@" in parts.netloc or not _is_host(host):
        return None
    return Origin(scheme=parts.scheme, host=host, port=_PORTS[parts.scheme] if port is None else port)


def _is_host(text: str) -> bool:
    if ":" not in text:
        return _NAME.fullmatch(text) is not None
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def judge(realm: str, *, registry: Origin, allowed: frozenset[str]) -> Trust:
    """Whether the realm that `registry` named may be asked, and with what.

    `allowed` are hosts, with `:port` where it is not the scheme's own.
    """
    found = origin(realm)
    if found is None:
        return Trust.REFUSED
    if found == registry:
        return Trust.CREDENTIALS
    if (found.scheme, registry.scheme) == ("http", "https"):
        return Trust.REFUSED
    if str(found) in allowed:
        # Plain HTTP is no worse than what the registry does anyway, as long as nobody else is on the way.
        open_to_others = found.scheme == "http" and found.host != registry.host
        return Trust.ANONYMOUS if open_to_others else Trust.CREDENTIALS
    return Trust.REFUSED if found.host != registry.host and _is_number(found.host) else Trust.ANONYMOUS


def _is_number(host: str) -> bool:
    """A token service has a name; a bare address is how one would make us knock at machines nearby."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True
