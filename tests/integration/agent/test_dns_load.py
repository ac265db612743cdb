"""The name server when one task asks more than it can answer."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import dns.message
import pytest

from agent.core.dns.budget import Budget
from tests.integration.agent.test_dns import worlds
from tests.support import twins
from tests.support.aio import bounded, until
from tests.support.dnsworld import Worlds, texts
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import EVERY_KIND, Lab, LabNode

__all__ = ["worlds"]  # a fixture is found by its name


@bounded(60)
async def test_a_task_that_asks_too_much_starves_nobody(worlds: Worlds) -> None:
    """Another process sends more than it may. What is too much is dropped and counted; others are answered within the
    time in which a person notices nothing.
    """
    async with worlds(budget=Budget(rate=1_000, burst=1_000)) as world:
        with flooded(world.port):
            await until(lambda: world.ours.refused["127.0.0.2"] > 1_000, what="questions are dropped", timeout_s=20)
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert texts(await world.ask("web", source="127.0.0.3")) == {"10.96.0.7"}
                took.append(time.monotonic() - began)
        print(f"answers beside a flood: median {sorted(took)[10] * 1000:.1f} ms, at most {max(took) * 1000:.1f} ms")
        assert sorted(took)[10] < 0.5
        assert world.ours.refused["127.0.0.3"] == 0


FLOOD = """
import socket, sys, time
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.bind(("127.0.0.2", 0))
asking.connect(("127.0.0.1", int(sys.argv[1])))
asking.setblocking(False)
question = bytes.fromhex(sys.argv[2])
while True:
    for _ in range(100):
        try:
            asking.send(question)
        except OSError:
            pass
    time.sleep(0.005)
"""
"""As many as the kernel lets through, of a task, to the name server: 20,000 a second."""


@contextlib.contextmanager
def flooded(port: int) -> Iterator[None]:
    """Another process asks all the time, and reads no answer."""
    question = dns.message.make_query("web", "A").to_wire()
    with subprocess.Popen([sys.executable, "-c", FLOOD, str(port), question.hex()]) as process:
        try:
            yield
        finally:
            process.kill()


@bounded(20)
async def test_over_tcp_a_task_waits_for_its_turn(worlds: Worlds) -> None:
    """Nothing is dropped: the connection tells the client to wait."""
    async with worlds(budget=Budget(rate=20, burst=1)) as world:
        began = time.monotonic()
        for _ in range(5):
            assert texts(await world.ask("web", tcp=True)) == {"10.96.0.7"}
        assert time.monotonic() - began >= 0.19
        assert not world.ours.refused


SO_RCVBUFFORCE = 33
ROOM_BYTES = 128 << 20
"""For all of them, so that what is missing was dropped by a rule."""


@pytest.mark.root
@EVERY_KIND
def test_the_kernel_keeps_the_line_short(lab: Lab, one: LabNode) -> None:
    """A task that sends a hundred thousand questions fills no buffer, and those of others all come in."""
    loud, quiet = lab.task(one, "loud-1", 2), lab.task(one, "quiet-1", 3)
    lab.serve(service("loud", endpoint("10.112.1.2")), service("quiet", endpoint("10.112.1.3"), number=2))
    came, server_at = Counter[str](), (one.at(one.gateway), 53)
    with (
        one.open(socket.SOCK_DGRAM) as server,
        loud.open(socket.SOCK_DGRAM) as many,
        quiet.open(socket.SOCK_DGRAM) as few,
    ):
        server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES)
        server.bind(server_at)
        server.settimeout(0.2)
        reader = threading.Thread(target=_read, args=(server, came))
        reader.start()
        began = time.monotonic()
        for number in range(100_000):
            many.sendto(b"?", server_at)
            if number % 10_000 == 0:
                few.sendto(b"?", server_at)
        took_s = time.monotonic() - began
        reader.join(20)
    allowed = 20_000 * (1 + took_s)
    print(f"{came['10.112.1.2']} of 100,000 questions came in within {took_s:.1f} s")
    assert came["10.112.1.2"] <= min(allowed * 1.1, 99_999), "the kernel drops what is too much"
    assert came["10.112.1.3"] == 10


def _read(server: socket.socket, came: Counter[str]) -> None:
    """Until nothing comes any more."""
    with contextlib.suppress(TimeoutError):
        while True:
            came[twins.plain(server.recvfrom(10)[1][0])] += 1
