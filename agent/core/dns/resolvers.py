"""The node's own resolv.conf (resolv.conf(5)): who answers for the rest of the world.

One rule: a line that makes no sense is passed over, as the C library does it.
"""

import ipaddress
from typing import Final, NamedTuple

MAX_SERVERS: Final = 3


class Resolvers(NamedTuple):
    """What is used of it."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def parse(text: str) -> Resolvers:
    """The servers in their order, and the domains to look in, of which the last line counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1 and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in {"search", "domain"}:
            search = tuple(word.rstrip(".") for word in words[1:] if word.strip("."))
    return Resolvers(servers=tuple(dict.fromkeys(servers))[:MAX_SERVERS], search=search)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True
