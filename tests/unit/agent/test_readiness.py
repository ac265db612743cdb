"""The worker and its containers' probes, in virtual time: when a task is ready, restarted, and drained."""

import asyncio
import contextlib

import pytest

from agent.core import probes
from agent.core.probes import Answer, Target, Verdict
from agent.probing import Probing
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import bounded
from tests.support.fake_agent import FakeMachine, loop_ms
from tests.support.fake_leader import task, template
from tests.support.working import REMOVE, SHUTDOWN, Agent, alive, machine_with_image

WEB = "web-1-a"
READINESS_FAILED = "readiness probe failed: HTTP GET /ready on port 8080: status 503"


def probe(port: str, path: str = "/", *, bad: int = 3) -> pb.Probe:
    """One question a second; the fake answers by the port."""
    http = pb.HttpProbe(port=port, path=path)
    return pb.Probe(http=http, interval=1_000, timeout=500, success_threshold=1, failure_threshold=bad)


def probed(**questions: pb.Probe) -> pb.TaskTemplate:
    made = template("/web")
    made.container.probes.CopyFrom(pb.Probes(**questions))
    return made


def serving() -> pb.TaskTemplate:
    made = template("/web", drain_seconds=2)
    made.container.ports.add(target=80)
    return made


async def ready(agent: Agent, task_id: str = WEB, *, within_s: float = 120) -> pb.TaskStatus:
    await agent.until(lambda: task_id in agent.statuses and agent.statuses[task_id].ready, within_s=within_s)
    return agent.statuses[task_id]


async def unready(agent: Agent, message: str, *, within_s: float = 120) -> pb.TaskStatus:
    def holds() -> bool:
        status = agent.statuses.get(WEB)
        return status is not None and not status.ready and status.message == message

    await agent.until(holds, within_s=within_s)
    return agent.statuses[WEB]


@bounded(3600, virtual_time=True)
async def test_not_ready_until_the_probe_says_so() -> None:
    """RUNNING with the reason, then ready; and the other way round later on, at once."""
    machine = machine_with_image()
    machine.unwell.add((WEB, "8080"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=probed(readiness=probe("8080", "/ready")))
        status = await unready(agent, READINESS_FAILED)
        assert (status.state, status.reason) == (states.RUNNING, "NotReady")
        machine.unwell.clear()
        status = await ready(agent, within_s=1.5)
        assert (status.message, status.reason, status.restarts) == ("", "", 0)
        machine.unwell.add((WEB, "8080"))
        await unready(agent, READINESS_FAILED, within_s=3.5)


@bounded(3600, virtual_time=True)
async def test_a_container_that_comes_up_is_ready_at_once() -> None:
    """It need not wait for the next interval, however long that is."""
    machine = machine_with_image()
    machine.slow_start_s = 0.3
    asked = probe("8080")
    asked.interval, asked.timeout = 60_000, 1_000
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=probed(readiness=asked))
        status = await ready(agent, within_s=10)
        assert status.started_at <= loop_ms() < status.started_at + 1_200


@bounded(3600, virtual_time=True)
async def test_equal_answers_are_told_once() -> None:
    """A container that is unwell for an hour is a handful of reports."""
    machine = machine_with_image()
    machine.unwell.add((WEB, "8080"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=probed(readiness=probe("8080", "/ready")))
        await unready(agent, READINESS_FAILED)
        told = len(agent.story[WEB])
        await asyncio.sleep(1800)
        assert machine.askings > 1700
        assert len(agent.story[WEB]) == told


@pytest.mark.parametrize("question", ["startup", "liveness"])
@bounded(3600, virtual_time=True)
async def test_a_container_that_is_not_alive_is_restarted(question: str) -> None:
    """In place, by the restart policy, and with the reason in its status until it fails for good."""
    machine = machine_with_image()
    machine.unwell.add((WEB, "9"))
    made = probed(**{question: probe("9", "/healthz")})
    made.restart.attempts = 2
    why = f"{question} probe failed: HTTP GET /healthz on port 9: status 503"
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await agent.until(lambda: WEB in agent.statuses and agent.statuses[WEB].reason == "ProbeFailed")
        assert (agent.statuses[WEB].message.startswith(why), agent.statuses[WEB].ready) == (True, False)
        status = await agent.reach(WEB, states.FAILED)
        assert (status.restarts, machine.starts[WEB], status.exit_code) == (2, 3, 143)
        assert (status.reason, status.message) == ("ProbeFailed", f"{why}, after 2 restarts")


@bounded(3600, virtual_time=True)
async def test_one_that_does_not_stop_is_killed_and_restarted() -> None:
    """The grace period counts here, too."""
    machine = machine_with_image()
    machine.ignores_stop = True
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=probed(liveness=probe("9")))
        await ready(agent)
        machine.unwell.add((WEB, "9"))
        await agent.until(lambda: machine.starts[WEB] == 2, within_s=15)
        assert agent.statuses[WEB].exit_code == 137


@bounded(3600, virtual_time=True)
async def test_a_restart_is_asked_anew() -> None:
    """What the container before it answered says nothing of the next one."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=probed(readiness=probe("8080", "/ready")))
        await ready(agent)
        machine.unwell.add((WEB, "8080"))
        machine.crash(WEB)
        status = await unready(agent, READINESS_FAILED)
        assert status.restarts == 1
        machine.unwell.clear()
        assert (await ready(agent)).restarts == 1


@bounded(3600, virtual_time=True)
async def test_startup_protects_a_slow_start() -> None:
    """A liveness probe that would have restarted it three times over is not asked before."""
    machine = machine_with_image()
    machine.slow_start_s = 20
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=probed(startup=probe("9", bad=60), liveness=probe("9")))
        status = await ready(agent)
        assert status.restarts == 0
        assert 20_000 <= loop_ms() - status.started_at < 21_500


@bounded(3600, virtual_time=True)
async def test_an_adopted_container_stays_ready_until_it_says_otherwise() -> None:
    """Agents come and go; neither is a reason to take a task out of its service."""
    machine = machine_with_image()
    made = probed(startup=probe("9"), readiness=probe("8080", "/ready"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await ready(agent)
    machine.unwell.add((WEB, "8080"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await ready(agent, within_s=1)
        await unready(agent, READINESS_FAILED, within_s=5)
    machine.unwell.clear()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await agent.until(lambda: WEB in agent.statuses)
        assert not agent.statuses[WEB].ready, "it was not ready, and has not answered yet"
        await ready(agent, within_s=1.5)
        assert machine.starts == {WEB: 1}


@bounded(3600, virtual_time=True)
async def test_a_restart_that_was_decided_is_carried_out_by_the_next_agent() -> None:
    """The container had its signal already; the end counts as what it is."""
    machine = machine_with_image()
    machine.ignores_stop = True
    made = probed(liveness=probe("9"))
    made.restart.condition = pb.RESTART_CONDITION_NEVER
    machine.unwell.add((WEB, "9"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await agent.until(lambda: WEB in agent.statuses and agent.statuses[WEB].reason == "ProbeFailed")
    machine.containers[WEB].ends_on_signal = True
    async with alive(machine) as agent:
        status = await agent.reach(WEB, states.FAILED)
        assert (status.reason, machine.starts) == ("ProbeFailed", {WEB: 1})


@bounded(3600, virtual_time=True)
async def test_draining() -> None:
    """Not ready at once; the signal only after no node sends connections, and 2 s more for those that are there."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=serving())
        await ready(agent)
        agent.complete(task(WEB, desired=SHUTDOWN), made=serving())
        status = await unready(agent, "draining connections", within_s=0.1)
        assert (status.state, status.reason) == (states.RUNNING, "Draining")
        await asyncio.sleep(1)
        withdrawn_at = loop_ms()
        agent.complete(task(WEB, desired=SHUTDOWN), made=serving(), withdrawn=(WEB,))
        status = await agent.reach(WEB, states.SHUTDOWN)
        assert 2_000 <= status.finished_at - withdrawn_at < 2_100


@pytest.mark.parametrize("desired", [SHUTDOWN, REMOVE])
@bounded(3600, virtual_time=True)
async def test_draining_without_a_control_plane(desired: pb.DesiredState.ValueType) -> None:
    """Nobody says that it is withdrawn: ten seconds, and what it has of connections gets its two."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=serving())
        await ready(agent)
        asked = loop_ms()
        agent.complete(task(WEB, desired=desired), made=serving())
        status = await agent.reach(WEB, states.SHUTDOWN)
        assert 12_000 <= status.finished_at - asked < 12_200


@bounded(3600, virtual_time=True)
async def test_what_has_no_ports_is_not_slowed() -> None:
    """It has no connections that come through a service."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=template("/web", drain_seconds=2))
        await ready(agent)
        asked = loop_ms()
        agent.complete(task(WEB, desired=SHUTDOWN), made=template("/web", drain_seconds=2))
        assert (await agent.reach(WEB, states.SHUTDOWN)).finished_at - asked < 100


@bounded(3600, virtual_time=True)
async def test_a_crash_ends_the_draining() -> None:
    """There is nobody left who could go on with connections."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=serving())
        await ready(agent)
        agent.complete(task(WEB, desired=SHUTDOWN), made=serving())
        await unready(agent, "draining connections")
        machine.crash(WEB, 9)
        status = await agent.reach(WEB, states.SHUTDOWN, within_s=0.1)
        assert (status.exit_code, machine.starts) == (9, {WEB: 1})


@bounded(3600, virtual_time=True)
async def test_what_the_leader_gave_up_is_drained_by_the_next_agent_too() -> None:
    """Clients that did not lose sight of the node go on with their connections, whatever becomes of its agent."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=serving())
        await ready(agent)
        lost = task(WEB, desired=SHUTDOWN)
        lost.status.state = states.ORPHANED
        agent.complete(lost, made=serving())
        began_s = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        assert machine.stops == []
    async with alive(machine) as agent:
        agent.complete(lost, made=serving())
        await agent.until(lambda: bool(machine.stops))
        ((_, stopped_s),) = machine.stops
        assert 1.9 < stopped_s - began_s < 2.5
        await agent.until(lambda: machine.containers == {} and machine.attached == {})
        assert WEB not in agent.statuses, "nothing is reported of it"


@bounded(3600, virtual_time=True)
async def test_draining_goes_on_with_the_next_agent() -> None:
    """Its moments are on disk: the time that has passed counts, and nothing starts anew."""
    machine = machine_with_image()
    made = serving()
    made.drain_seconds = 30
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await ready(agent)
        asked = loop_ms()
        agent.complete(task(WEB, desired=SHUTDOWN), made=made, withdrawn=(WEB,))
        await unready(agent, "draining connections")
        await asyncio.sleep(20)
    async with alive(machine) as agent:
        await agent.until(lambda: WEB in agent.statuses)
        assert not agent.statuses[WEB].ready
        status = await agent.reach(WEB, states.SHUTDOWN)
        assert 30_000 <= status.finished_at - asked < 30_200


@bounded(3600, virtual_time=True)
async def test_one_that_is_wanted_again_drains_again_later() -> None:
    """What was noted for an end that did not come is forgotten."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=serving())
        await ready(agent)
        agent.complete(made=serving())
        await agent.until(lambda: agent.worker.observed[WEB].record.leaving_since > 0)
        agent.complete(task(WEB), made=serving())
        await ready(agent)
        await agent.until(lambda: agent.worker.observed[WEB].record.leaving_since == 0)
        await asyncio.sleep(60)
        asked = loop_ms()
        agent.complete(task(WEB, desired=SHUTDOWN), made=serving(), withdrawn=(WEB,))
        status = await agent.reach(WEB, states.SHUTDOWN)
        assert (machine.starts, status.finished_at - asked >= 2_000) == ({WEB: 1}, True)


@bounded(3600, virtual_time=True)
async def test_many_are_not_asked_together() -> None:
    """A hundred containers that an agent adopts in one moment are asked over the whole interval."""
    machine, names = machine_with_image(), [f"web-{number}-a" for number in range(100)]
    made = probed(readiness=probe("8080"))
    async with alive(machine) as agent:
        agent.complete(*(task(name) for name in names), made=made)
        for name in names:
            await ready(agent, name)
    async with alive(machine):
        busiest = await most_askings(machine, within_s=0.1, during_s=2)
        assert 0 < busiest < 25


class Moody:
    """A prober that says something else each time, or breaks."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks
        self.askings = 0

    async def ask(self, _target: Target, _probe: pb.Probe) -> Answer:
        self.askings += 1
        if self.breaks:
            raise RuntimeError("a bug")
        return Answer(good=False, message=f"status {500 + self.askings}")


async def told_by(prober: Moody, *, for_s: float) -> list[Verdict]:
    """The verdicts on a container that is asked ten times a second."""
    asked = pb.Probes(readiness=pb.Probe(tcp=pb.TcpProbe(port="1"), interval=100, timeout=50, failure_threshold=3))
    health = probes.begin(asked, age_ms=0, jitter=0, adopted=False, was_ready=False)
    target = Target(container_id=WEB, address="10.0.0.2", container=pb.Container())
    told: list[Verdict] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await Probing(target, health, age_ms=0, prober=prober, tell=told.append).run()
    return told


@bounded(60, virtual_time=True)
async def test_messages_are_told_once_a_second() -> None:
    """However often a container changes its mind about what is wrong."""
    prober = Moody()
    told = await told_by(prober, for_s=10)
    assert prober.askings >= 99
    assert 9 <= len(told) <= 12
    assert len({verdict.message for verdict in told}) == len(told)


@bounded(60, virtual_time=True)
async def test_a_prober_that_breaks_is_a_bad_answer() -> None:
    """One container's trouble ends nothing else; it is asked on."""
    prober = Moody(breaks=True)
    told = await told_by(prober, for_s=2)
    assert [verdict.ready for verdict in told] == [False] * len(told)
    assert "the agent failed to ask" in told[-1].message
    assert prober.askings >= 19


async def most_askings(machine: FakeMachine, *, within_s: float, during_s: float) -> int:
    """The most askings in any such span of time."""
    counts = []
    for _ in range(int(during_s / within_s)):
        before = machine.askings
        await asyncio.sleep(within_s)
        counts.append(machine.askings - before)
    return max(counts)
