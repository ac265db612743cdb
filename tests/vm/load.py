"""Clients outside the machines that ask for a page again and again, and miss no request that fails."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from deploy.vmlab import cluster, plan
from deploy.vmlab.laboratory import Laboratory

_TIMEOUT_S = 20.0
_PAUSE_S = 0.2


@dataclass(slots=True)
class Load:
    """What the clients have seen so far."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def ask(laboratory: Laboratory, machine: plan.Machine) -> str:
    """What a replica says of itself, asked at one machine's published port. OSError when nobody answers."""
    with laboratory.inside():
        return _ask(machine)


def _ask(machine: plan.Machine) -> str:
    connection = http.client.HTTPConnection(machine.address, cluster.PUBLISHED_PORT, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ConnectionError(f"{answer.status} {answer.reason}")
        return answer.read().decode().strip()


@contextlib.contextmanager
def on(laboratory: Laboratory, *machines: plan.Machine) -> Iterator[Load]:
    """A client of each machine for the length of a block."""
    seen, stop = Load(), threading.Event()
    clients = [threading.Thread(target=_client, args=(laboratory, machine, seen, stop)) for machine in machines]
    for client in clients:
        client.start()
    try:
        yield seen
    finally:
        stop.set()
        for client in clients:
            client.join(_TIMEOUT_S + 10)


def _client(laboratory: Laboratory, machine: plan.Machine, seen: Load, stop: threading.Event) -> None:
    with laboratory.inside():  # namespaces are a thread's own
        while not stop.wait(_PAUSE_S):
            began = time.monotonic()
            try:
                assert _ask(machine).startswith("task="), "a replica answers something else"
            except (OSError, http.client.HTTPException, AssertionError) as error:
                seen.failures.append(f"{machine.name} after {time.monotonic() - began:.1f} s: {error!r}")
            else:
                seen.answered += 1
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
