"""The connections to the ports of this process: how many there may be from one address, and the way to end one.

gRPC tells nobody in Python of connections, and counts none by where they come from. So they are looked for among this
process's own descriptors, now and then: what has become too many from one address is shut down, the newest first.

The rule: nothing is closed here. A socket is gRPC's; shutting it down is what its peer could have done.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote

import structlog

EVERY_S = 1.0
_log = structlog.get_logger()

Name = tuple[str, int]
"""An address and a port."""


class Connections:
    """`ports`: where this process is called. `most`: connections from one address, of IPv6 from one /64."""

    def __init__(self, ports: Callable[[], Sequence[int]], most: int, *, every_s: float = EVERY_S) -> None:
        self._ports = ports
        self._most = most
        self._every_s = every_s
        self._seen: dict[Name, int] = {}
        """When each of them was seen first, counted in looks."""
        self._looks = 0
        self.ended = 0

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            # Without more descriptors than that, nobody can have too many of them.
            if len(_descriptors()) > self._most:
                self.look()

    def look(self) -> None:
        """Ends those that are too many."""
        self._looks += 1
        now = set(_peers(self._ports()))
        self._seen = {name: self._seen.get(name, self._looks) for name in now}
        by_origin: dict[str, list[Name]] = defaultdict(list)
        for name in now:
            by_origin[origin(name[0])].append(name)
        for where, names in by_origin.items():
            if len(names) > self._most:
                newest = sorted(names, key=lambda name: self._seen[name])[self._most :]
                _log.warning("too many connections from one address", address=where, ended=len(newest), most=self._most)
                self._end(newest)

    def hang_up(self, peer: str) -> bool:
        """Ends the connection of a peer, as gRPC names it: `ipv4:10.0.0.7:41234`. False: there is none."""
        family, _, place = unquote(peer).partition(":")
        host, _, port = place.rpartition(":")
        if family not in {"ipv4", "ipv6"} or not port.isdigit():
            return False
        return self._end([(_plain(host.strip("[]")), int(port))]) > 0

    def _end(self, names: Iterable[Name]) -> int:
        unwanted = set(names)
        ended = 0
        for taken in _sockets(self._ports()):
            if _peer(taken) in unwanted:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    taken.shutdown(socket.SHUT_RDWR)
                    ended += 1
        self.ended += ended
        return ended


def origin(host: str) -> str:
    """What counts as one address: of IPv6, the /64 that one machine or household has."""
    found = ipaddress.ip_address(_plain(host))
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def _peers(ports: Sequence[int]) -> Iterator[Name]:
    return (name for taken in _sockets(ports) if (name := _peer(taken)) is not None)


def _sockets(ports: Sequence[int]) -> Iterator[socket.socket]:
    """Each connection to one of the ports, under a descriptor of its own, which is closed afterwards.

    A descriptor may be closed and given to something else at any time; one's own copy of it stays what it is.
    """
    wanted = frozenset(ports)
    for descriptor in _descriptors():
        taken = _socket(descriptor)
        if taken is not None:
            with taken:
                if taken.family in _INTERNET and taken.getsockname()[1] in wanted:
                    yield taken


def _descriptors() -> Sequence[int]:
    """Of this process."""
    return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names alone, of thousands


_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


def _socket(descriptor: int) -> socket.socket | None:
    """A copy of a descriptor, if it is a socket's."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _peer(taken: socket.socket) -> Name | None:
    """None for a socket that listens, or that is over."""
    try:
        host, port = taken.getpeername()[:2]
    except OSError:
        return None
    return _plain(host), port


def _plain(host: str) -> str:
    """IPv4 on a socket of IPv6 is IPv4."""
    found = ipaddress.ip_address(host.partition("%")[0])
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped or found)
