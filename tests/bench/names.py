"""The name server of a node beside dnsmasq: how long ten thousand answers take, 64 questions at a time.

Each serves from one process; the questions come from this one, so on a machine with two processors neither waits for
the other's.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agent.core.dns import names, wire
from tests.bench.measure import Case
from tests.support.waiting import until

OURS, PEER = 25_353, 25_354
QUESTIONS = 10_000
AT_ONCE = 64
TIMEOUT_S = 5
ROOT = Path(__file__).parents[2]
ADDRESS, TASKS, MISSING = "web7.default.orch", "tasks.web7.default.orch", "nosuch.default.orch"


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Both servers are up inside the block."""
    with contextlib.ExitStack() as stack:
        _start(stack, [sys.executable, "-m", "tests.bench._nameserver", str(OURS)])
        _wait_for(OURS)
        dnsmasq = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
        if dnsmasq is None:
            print("bench: no dnsmasq on PATH: ours alone (apt-get install dnsmasq-base)", file=sys.stderr)
        else:
            _start(stack, [dnsmasq, *_peer_options()])
            _wait_for(PEER)

        def case(what: str, name: str) -> Case:
            peer = _measure(PEER, name) if dnsmasq else None
            title = f"names.10000_answers.{what}"
            # 10,000 a second is the mark
            return Case(
                name=title, unit="s", ours=_measure(OURS, name), peer=peer, peer_name="dnsmasq", rounds=5, mark=1.0
            )

        yield [case("address", ADDRESS), case("ten_tasks", TASKS), case("not_there", MISSING)]


def _peer_options() -> list[str]:
    tasks = [f"--host-record={TASKS},10.1.0.{70 + slot}" for slot in range(1, 11)]
    plain = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
    listen = [f"--port={PEER}", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/orch/"]
    return [*plain, *listen, f"--host-record={ADDRESS},10.96.0.7", *tasks]


def _start(stack: contextlib.ExitStack, command: Sequence[str]) -> None:
    process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL))
    stack.callback(process.kill)


def _question(name: str) -> bytes:
    return wire.write_query(7, wire.Question(names.from_text(name), wire.A), flags=wire.RD, edns=None)


def _wait_for(port: int) -> None:
    def answers() -> bool:
        with _client(port, timeout_s=0.2) as client, contextlib.suppress(OSError):
            client.send(_question(ADDRESS))
            return bool(client.recv(wire.UDP_BYTES))
        return False

    until(answers, what=f"the server at port {port} answers", timeout_s=20)


def _measure(port: int, name: str) -> Callable[[], float]:
    def measure() -> float:
        question = _question(name)
        with _client(port, timeout_s=TIMEOUT_S) as client:
            started = time.perf_counter()
            for number in range(QUESTIONS + AT_ONCE):
                if number < QUESTIONS:
                    client.send(question)
                if number >= AT_ONCE:
                    client.recv(wire.UDP_BYTES)
            return time.perf_counter() - started

    return measure


def _client(port: int, *, timeout_s: float) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", port))
    client.settimeout(timeout_s)
    return client
