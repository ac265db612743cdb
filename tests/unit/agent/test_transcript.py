"""The life of a task of several containers as its leader hears of it, from the assignment to the end, as a text."""

import asyncio
from pathlib import Path

from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import golden
from tests.support.aio import bounded
from tests.support.fake_leader import task
from tests.support.working import SHUTDOWN, Agent, alive, machine_with_image
from tests.unit.agent.test_crowd import FETCH, LOGGER, MIGRATE, PROXY, WEB, crowd, end
from tests.unit.agent.test_readiness import ready


class Transcript:
    """What is told, and what happens in between."""

    def __init__(self, agent: Agent) -> None:
        self.lines: list[str] = []
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._last = ""

    async def listen(self) -> None:
        while True:
            status = self._agent.statuses.get(WEB)
            if status is not None:
                self._tell(status)
            await asyncio.sleep(0.005)

    def act(self, what: str) -> None:
        self._line(f"--- {what}")

    def _tell(self, status: pb.TaskStatus) -> None:
        others = " ".join(f"{one.name}:{_word(one)}" for one in status.containers)
        ready_word = "ready" if status.ready else "-"
        said = f"{states.word(status.state):<9} {ready_word:<5} {others}  {status.message}".rstrip()
        if said != self._last:
            self._last = said
            self._line(said)

    def _line(self, text: str) -> None:
        self.lines.append(f"{self._loop.time() - self._start:7.2f}  {text}")


def _word(one: pb.ContainerStatus) -> str:
    if one.running:
        return "ready" if one.ready else "runs"
    return str(one.exit_code) if one.HasField("exit_code") else "-"


@bounded(3600, virtual_time=True)
async def test_a_life() -> None:
    """Init containers fail and succeed, a sidecar and the main one crash, and everything stops from the inside out."""
    machine, made = machine_with_image(), crowd()
    machine.delay_s = 0.05
    made.container.lifecycle.pre_stop.sleep = 1_000
    async with alive(machine) as agent, asyncio.TaskGroup() as group:
        told = Transcript(agent)
        listening = group.create_task(told.listen())
        await asyncio.sleep(0.1)
        told.act("it is assigned; fetch ends well, migrate fails once")
        agent.complete(task(WEB), made=made)
        for container, code in ((FETCH, 0), (MIGRATE, 1), (MIGRATE, 0)):
            await end(agent, container, code)
            await asyncio.sleep(0.2)
        await ready(agent)
        await asyncio.sleep(1)
        for what, container in (("proxy crashes", PROXY), ("logger crashes", LOGGER), ("the main one crashes", WEB)):
            told.act(what)
            machine.crash(container, 1)
            await asyncio.sleep(0.02)
            await ready(agent)
            await asyncio.sleep(5)
        told.act("it is told to stop")
        agent.complete(task(WEB, desired=SHUTDOWN), made=made)
        await agent.reach(WEB, states.SHUTDOWN)
        await asyncio.sleep(0.1)
        listening.cancel()
    golden.check(Path(__file__).parent / "crowd.txt", "\n".join(told.lines) + "\n")
