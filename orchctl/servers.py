"""The other control planes of a cluster: they are dialed when the one that a context names does not answer.

A context knows all of them, from what each control plane tells of the others beside its answers:

    home: {server: 10.0.0.1:7400, servers: [10.0.0.1:7400, 10.0.0.2:7400, 10.0.0.3:7400], trust: …}

Two rules. An address that was typed is dialed alone: whoever names one means it. And nothing is written unless what was
told differs from what is known: a cluster that stays as it is costs nothing.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

Known = Callable[[], Sequence[str]]

_known: ContextVar[Known] = ContextVar("known", default=tuple)
_told: ContextVar[list[str]] = ContextVar("told")

MOST = 32
"""More are no control plane of a cluster."""


@contextlib.contextmanager
def known(addresses: Known, keep: Callable[[Sequence[str]], None]) -> Iterator[None]:
    """Inside the block these stand for each other. What is told of them is kept at its end."""
    told: list[str] = []
    tokens = _known.set(addresses), _told.set(told)
    try:
        yield
    finally:
        _known.reset(tokens[0])
        _told.reset(tokens[1])
        if told:
            keep(told)


def said() -> str:
    """What this program knows, as it is said to the server. Empty: it does not want to be told."""
    return ",".join(_known.get()())


def hear(text: str) -> None:
    """What a server has told."""
    told = _told.get(None)
    addresses = text.split(",")
    if told is not None and len(addresses) <= MOST:
        told[:] = addresses


def target(server: str) -> str:
    """What gRPC dials for a server: it first, and then those that stand for it. It is left alone where nobody does."""
    others = _known.get()()
    if server not in others or len(others) < 2:
        return server
    found = [place for address in [server, *others] for place in _places(address)]
    family = found[0][0] if found else None
    places = list(dict.fromkeys(place for kind, place in found if kind == family))
    if len(places) < 2:
        return server
    return f"{'ipv6' if family is socket.AF_INET6 else 'ipv4'}:{','.join(places)}"


def _places(address: str) -> Sequence[tuple[socket.AddressFamily, str]]:
    """Its addresses as gRPC wants them; none when the name means nothing here."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [
        (family, _shown(family, str(place[0]), int(place[1])))
        for family, _, _, _, place in found
        if family in {socket.AF_INET, socket.AF_INET6}
    ]


def _shown(family: socket.AddressFamily, host: str, port: int) -> str:
    return f"[{host}]:{port}" if family is socket.AF_INET6 else f"{host}:{port}"
