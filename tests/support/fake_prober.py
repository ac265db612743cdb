"""Probes of a node without a machine: the answers that its fake machine holds."""

import asyncio

from agent.core.probes import Answer, Target
from protos import containers, units
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_agent import FakeMachine, loop_ms


class FakeProber:
    """Answers that the machine holds: a container answers well unless it has just started or is `unwell`."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def ask(self, target: Target, probe: pb.Probe) -> Answer:
        machine = self._machine
        machine.askings += 1
        await asyncio.sleep(min(machine.delay_s, probe.timeout / 1000))
        if machine.delay_s * 1000 > probe.timeout:
            return Answer(good=False, message=f"no answer within {units.format_duration(probe.timeout)}")
        container = machine.running().get(target.container_id)
        task_id, _ = containers.split(target.container_id)
        assert container is None or machine.attached[task_id].address == target.address, "another's address"
        if container is None or loop_ms() - container.started_at < machine.slow_start_s * 1000:
            return Answer(good=False, message="connection refused")
        if (target.container_id, probe.http.port) in machine.unwell:
            machine.answered_badly.add(target.container_id)
            return Answer(good=False, message="status 503")
        machine.answered_well.add((target.container_id, container.started_at))
        return Answer(good=True)
