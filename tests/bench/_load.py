"""Requests by wrk, from inside a network namespace, and one request at a time from this process."""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import _server
from tests.support.places import Place

CONNECTIONS, SECONDS = 16, 1
_PAUSE_S = 0.001
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of wrk found: microseconds for each request, and milliseconds that half and nearly all waited."""

    per_request: float
    p50: float
    p99: float


def run(place: Path, address: str, port: int, *, new_connections: bool = False) -> Load:
    """From the namespace `place`. AssertionError when anything but good answers came."""
    wrk = shutil.which("wrk")
    assert wrk is not None, "wrk is not on PATH: apt-get install wrk"
    command = [wrk, "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{SECONDS}s", "--latency"]
    command += ["--header", "Connection: close"] if new_connections else []
    command = ["nsenter", f"--net={place}", *command, f"http://{address}:{port}{_server.PATH}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 20, check=False)
    said = done.stdout
    assert done.returncode == 0, f"{command}: {said}{done.stderr}"
    assert "Non-2xx" not in said, said
    assert not re.search(r"Socket errors: connect [1-9]", said), said
    return Load(
        per_request=1e6 / float(_found(r"Requests/sec: +([\d.]+)", said)[1]),
        p50=_percentile(50, said),
        p99=_percentile(99, said),
    )


def _percentile(number: int, said: str) -> float:
    """Milliseconds, in a line such as `99%  529.00us`."""
    found = _found(rf"{number}% +([\d.]+)(us|ms|s)", said)
    return float(found[1]) * _UNITS[found[2]]


def _found(pattern: str, said: str) -> re.Match[str]:
    found = re.search(pattern, said)
    assert found, said
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """When it was there, and which task it came from."""

    at: float
    task: str


class Asking:
    """Asks again and again from a namespace, with a new connection each time, in a thread."""

    def __init__(self, place: Path, address: str) -> None:
        self._place, self._address = Place(place), address
        self._end = threading.Event()
        self.answers: list[Answer] = []
        self._thread = threading.Thread(target=self._ask_on)

    @contextlib.contextmanager
    def going_on(self) -> "Iterator[Asking]":
        """For the length of a block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._end.set()
            self._thread.join(timeout=10)

    def first(self, wanted: Callable[[Answer], bool]) -> Answer | None:
        """The first such answer so far."""
        return next(filter(wanted, list(self.answers)), None)

    def _ask_on(self) -> None:
        while not self._end.wait(_PAUSE_S):
            # refused while there is nobody, and that is what is waited for
            with contextlib.suppress(ConnectionRefusedError, TimeoutError), self._place.open() as client:
                self._ask(client)

    def _ask(self, client: socket.socket) -> None:
        client.connect((self._address, _server.PORT))
        client.sendall(f"GET {_server.PATH} HTTP/1.0\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            text = answer.read().decode()
        if text:
            self.answers.append(Answer(at=time.perf_counter(), task=text.rpartition("\r\n\r\n")[2].strip()))
