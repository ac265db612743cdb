"""Network namespaces that ask each other: who answers, and who is refused in which words.

Tests write addresses of IPv4. In a lab with IPv6 each stands for its twin (`twins`), in what is asked and in the
answers, so that the same test is one of the other family.
"""

import asyncio
import collections
import contextlib
import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.adapters.echo import Echo
from runtime import syscalls
from tests.support import twins

LIMIT_S = 10.0
VIRTUAL = "10.113.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Who answered, and from which address the question seemed to come."""

    name: str
    client: str


class Place:
    """A network namespace. With `six`, addresses stand for their twins."""

    def __init__(self, path: Path, *, six: bool = False) -> None:
        self.path, self.six = path, six

    def at(self, address: str) -> str:
        """As it is here."""
        return twins.twin(address) if self.six else address

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            syscalls.setns(there, syscalls.CLONE_NEWNET)
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
            os.close(there)
            os.close(home)

    def open(self, kind: socket.SocketKind = socket.SOCK_STREAM, *, source: str = "") -> socket.socket:
        """A socket there."""
        with self.entered():
            made = socket.socket(socket.AF_INET6 if self.six else socket.AF_INET, kind)
        made.settimeout(2)
        if source:
            made.bind((self.at(source), 0))
        return made

    def ask(self, host: str, port: int, *, source: str = "") -> Answer:
        """One TCP connection. Raises OSError."""
        with self.open(source=source) as client:
            client.connect((self.at(host), port))
            return _answer(client.recv(1000))

    def ask_udp(self, host: str, port: int, client: socket.socket | None = None) -> Answer:
        """One datagram and its answer, with a new socket unless one is given. Raises OSError."""
        with contextlib.ExitStack() as stack:
            asking = client or stack.enter_context(self.open(socket.SOCK_DGRAM))
            asking.connect((self.at(host), port))
            asking.send(b"?")
            return _answer(asking.recv(1000))

    def pings(self, host: str) -> bool:
        """Whether it answers."""

        async def ask() -> bool:
            with self.entered():
                echo = Echo(self.at("0.0.0.0"))
            try:
                return bool(await echo.ask(self.at(host), [64], timeout_s=1))
            finally:
                echo.close()

        return asyncio.run(ask())

    def ip(self, *words: str) -> str:
        """What ip(8) says there, with the addresses as they are here."""
        nodad = ["nodad"] if self.six and words[:2] == ("addr", "add") else []
        return self.run("ip", "-6" if self.six else "-4", *map(self.at, words), *nodad)

    def run(self, *command: str) -> str:
        """What a command says there."""
        argv = ["nsenter", f"--net={self.path}", *command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


def names(place: Place, host: str = VIRTUAL, port: int = 80, times: int = 40) -> collections.Counter[str]:
    """Who answers how often."""
    return collections.Counter(place.ask(host, port).name for _ in range(times))


def refused(place: Place, host: str, port: int) -> None:
    """At once."""
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        place.ask(host, port)
    assert time.monotonic() - began < 1


def prohibited(place: Place, host: str, port: int = 80) -> None:
    """At once, and said to be so. Of IPv6 the kernel has another word for the same answer, and does not listen to it
    while it is sending: on one machine it hears it at the second attempt, after a second.
    """
    began = time.monotonic()
    with pytest.raises(OSError) as told:
        place.ask(host, port)
    assert told.value.errno == (errno.EACCES if place.six else errno.EHOSTUNREACH)
    assert time.monotonic() - began < 1 + place.six


def _answer(data: bytes) -> Answer:
    name, _, client = data.decode().partition(" ")
    return Answer(name=name, client=twins.plain(client))
