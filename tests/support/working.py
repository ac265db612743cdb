"""A worker on a fake machine, with the leader's side of what it says."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from agent.core.users import IdPool
from agent.worker import Worker
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_agent import (
    IDS,
    NODE,
    FakeDevices,
    FakeDisk,
    FakeImages,
    FakeMachine,
    FakeNetwork,
    FakeRuntime,
    loop_ms,
)
from tests.support.fake_leader import template
from tests.support.fake_names import FakeNames
from tests.support.fake_prober import FakeProber

NETWORK = dpb.NodeNetwork(cluster_range="10.112.0.0/16", subnet="10.112.1.0/24")
SHUTDOWN, REMOVE = pb.DESIRED_STATE_SHUTDOWN, pb.DESIRED_STATE_REMOVE


class Agent:
    """A worker, and the leader's side of its outbox."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.worker = Worker(
            runtime=FakeRuntime(machine),
            prober=FakeProber(machine),
            images=FakeImages(machine),
            network=FakeNetwork(machine),
            names=FakeNames(),
            disk=FakeDisk(machine),
            devices=FakeDevices(),
            users=IdPool(IDS),
            node=NODE,
            now_ms=loop_ms,
            chance=random.Random(1),
        )
        self.statuses: dict[str, pb.TaskStatus] = {}
        self.story: dict[str, list[str]] = {}
        self._sequence = 0

    async def listen(self) -> None:
        while True:
            report = await self.worker.outbox.next_batch()
            for entry in report.tasks:
                self.statuses[entry.task_id] = entry.status
                self.story.setdefault(entry.task_id, []).append(states.word(entry.status.state))
            self.worker.outbox.acknowledge(report.sequence)

    def complete(
        self,
        *tasks: pb.Task,
        made: pb.TaskTemplate | None = None,
        withdrawn: tuple[str, ...] = (),
        settled: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Assign everything."""
        self._sequence += 1
        revision = pb.Revision(meta=pb.Meta(id="r1"), template=made or template("/web"), images=settled)
        gap = self.worker.assign(
            dpb.Assignment(
                type=dpb.Assignment.TYPE_COMPLETE,
                results_in=self._sequence,
                tasks=tasks,
                revisions=[revision],
                network=NETWORK,
                withdrawn_tasks=withdrawn,
            )
        )
        assert gap is None, gap

    async def until(self, holds: Callable[[], bool], *, within_s: float = 120) -> None:
        """Let virtual time pass until something holds."""
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - nothing announces it, and time is virtual
                await asyncio.sleep(0.005)

    async def reach(self, task_id: str, state: int, *, within_s: float = 120) -> pb.TaskStatus:
        """The status once the task is in a state."""
        await self.until(lambda: task_id in self.statuses and self.statuses[task_id].state == state, within_s=within_s)
        return self.statuses[task_id]


@contextlib.asynccontextmanager
async def alive(machine: FakeMachine) -> AsyncIterator[Agent]:
    """An agent that lives inside the block and is killed at its end."""
    agent = Agent(machine)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.worker.run()), group.create_task(agent.listen())]
        await agent.worker.restored.wait()
        agent.worker.begin_session()
        yield agent
        for each in tasks:
            each.cancel()


def machine_with_image() -> FakeMachine:
    machine = FakeMachine()
    machine.add_image()
    return machine
