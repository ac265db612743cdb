"""Names while an agent is started again: how long nobody answers, and that what is answered then is right."""

import contextlib
import socket
import time

import dns.message
import dns.rcode
import pytest

from images.store import ImageStore
from tests.integration.agent.conftest import Node, led
from tests.integration.agent.test_names import GATEWAY, SERVICES, sleeper
from tests.support.aio import bounded
from tests.support.fake_leader import task
from tests.support.netlab import Place

pytestmark = pytest.mark.root

TASKS = 20
BOUND_S = 5.0
"""An idle machine takes a tenth of it; on a busy one others have the processor meanwhile."""


def first(place: Place, name: str, within_s: float) -> tuple[dns.message.Message, float]:
    """The first answer to anything that is asked there, every 20 ms, and how long that question had to wait."""
    asked: dict[int, float] = {}
    deadline = time.monotonic() + within_s
    with place.open(socket.SOCK_DGRAM) as asking:
        asking.connect((GATEWAY, 53))
        asking.settimeout(0.02)
        while time.monotonic() < deadline:
            query = dns.message.make_query(name, "A")
            with contextlib.suppress(OSError):
                asked[query.id] = time.monotonic()
                asking.send(query.to_wire())
                answer = dns.message.from_wire(asking.recv(2000))
                return answer, time.monotonic() - asked[answer.id]
    raise AssertionError(f"no answer within {within_s} s")


@bounded(120)
async def test_names_are_answered_soon_after_the_agent_starts(node: Node, store: ImageStore) -> None:
    """From what is on the disk, by task: without a leader, and before containers are looked at."""
    async with led(node, store) as leader:
        await leader.announce_services(*SERVICES)
        names = [f"web-{number}-a" for number in range(TASKS)]
        for name in names:
            await leader.assign(task(name), template=sleeper())
        for name in names:
            await leader.running(name)
    place = Place(node.state / "tasks" / names[-1] / "netns")
    before, _ = first(place, "web", 5)
    assert before.answer[0][0].to_text() == "10.112.200.7"
    node.kill()
    began = time.monotonic()
    node.start("unix:/nobody")
    answer, waited_s = first(place, "web", BOUND_S)
    took_s = time.monotonic() - began
    print(
        f"with {TASKS} containers to adopt, the first answer came {took_s * 1000:.0f} ms after the agent's start, "
        f"to a question that was asked {(took_s - waited_s) * 1000:.0f} ms after it"
    )
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.answer[0][0].to_text() == "10.112.200.7", "the namespace is the task's: it is known who asks"
    assert waited_s > 0.1, "a question is kept while the agent is still being made; nobody has to ask again"
