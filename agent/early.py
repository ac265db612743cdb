"""The sockets that names are asked at, opened before anything else is done.

An agent that is started again needs most of a second to import what it is made of and to look at what runs. A question
that comes meanwhile is kept by the kernel if there is a socket, and answered then; without one it is lost, and C
libraries ask again only after 2.5 or 5 seconds.

One rule: nothing is imported here that takes time.
"""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

NOTE = "names-at"
"""In the state folder: the addresses at which an agent answered last, one of each family, with a space between."""
PORT = 53
BUFFER_BYTES = 1 << 20


def opened(arguments: Sequence[str]) -> tuple[socket.socket, ...]:
    """Where an earlier agent with this command line answered, if there was one: at those addresses that are there."""
    made = []
    with contextlib.suppress(OSError, ValueError):
        for address in Path(_state(arguments), NOTE).read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                made.append(bound(address, PORT))
    return tuple(made)


def bound(address: str, port: int) -> socket.socket:
    """A UDP socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def _state(arguments: Sequence[str]) -> str:
    """What `--state` says; argparse, which knows it all, is among what takes time. Raises ValueError."""
    for number, argument in enumerate(arguments):
        name, sign, value = argument.partition("=")
        if name == "--state":
            return value if sign else "".join(arguments[number + 1 : number + 2])
    raise ValueError("no state folder is named")
