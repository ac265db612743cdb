"""The name server when one task asks more than it can answer."""

import contextlib
import socket
import threading
import time

import dns.message

from agent.core.dns.budget import Budget
from tests.integration.agent.test_dns import Worlds, texts, worlds
from tests.support.aio import bounded, until

__all__ = ["worlds"]  # a fixture is found by its name


@bounded(60)
async def test_a_task_that_asks_too_much_starves_nobody(worlds: Worlds) -> None:
    """A thread sends as fast as it can. What is too much is dropped and counted; others are answered within the time in
    which a person notices nothing.
    """
    async with worlds(budget=Budget(rate=1_000, burst=1_000)) as world:
        ended = threading.Event()
        flood = threading.Thread(target=_flood, args=(world.port, ended))
        flood.start()
        try:
            await until(lambda: world.ours.refused["127.0.0.2"] > 1_000, what="questions are dropped", timeout_s=20)
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert texts(await world.ask("web", source="127.0.0.3")) == {"10.96.0.7"}
                took.append(time.monotonic() - began)
        finally:
            ended.set()
            flood.join(10)
        print(f"answers beside a flood: median {sorted(took)[10] * 1000:.1f} ms, at most {max(took) * 1000:.1f} ms")
        assert sorted(took)[10] < 0.5
        assert world.ours.refused["127.0.0.3"] == 0


def _flood(port: int, ended: threading.Event) -> None:
    question = dns.message.make_query("web", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("127.0.0.2", 0))
        asking.connect(("127.0.0.1", port))
        asking.setblocking(False)
        while not ended.is_set():
            for _ in range(100):
                with contextlib.suppress(OSError):
                    asking.send(question)


@bounded(20)
async def test_over_tcp_a_task_waits_for_its_turn(worlds: Worlds) -> None:
    """Nothing is dropped: the connection tells the client to wait."""
    async with worlds(budget=Budget(rate=20, burst=1)) as world:
        began = time.monotonic()
        for _ in range(5):
            assert texts(await world.ask("web", tcp=True)) == {"10.96.0.7"}
        assert time.monotonic() - began >= 0.19
        assert not world.ours.refused
