"""Who may be asked for a token, and who may see credentials while that is done.

A registry names the address of its token service itself, so a hostile one could name its own, and collect passwords
(CVE-2020-15157), or the address of a machine that only we reach. The rule: credentials go to the registry's own
origin, or to a host that the configuration allows for this registry; everybody else is asked without a name, and never
over plain HTTP on behalf of a registry that speaks TLS.
"""

from __future__ import annotations

import enum
import ipaddress
import urllib.parse
from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}


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
    """The origin of a http(s) URL; None for another scheme, no host, a user, or a port that is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return Origin(scheme=parts.scheme, host=parts.hostname, port=_PORTS[parts.scheme] if port is None else port)


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
