"""The session: how it begins, what it says, and how it comes back."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from agent.errors import Temporary
from agent.holdings import Holdings
from agent.servers import Servers
from agent.session import Session
from agent.streams import Answers, Streams
from protos import findings, states
from protos.link import Link, LinkLost
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import bounded
from tests.support.fake_agent import FakeConnector, FakeLogs, FakeMachine, FakeRuntime
from tests.support.fake_checks import FakeChecks, FakeCommits, FakeDoctor, FakeMeter
from tests.support.fake_leader import task, template
from tests.support.working import NETWORK, Agent

Leader = Link[dpb.LeaderMessage, dpb.AgentMessage]
virtual = bounded(3600, virtual_time=True)


class Wired:
    """An agent with its session; the test is the leader."""

    def __init__(self, servers: tuple[str, ...] = ("cp1", "cp2")) -> None:
        self.machine = FakeMachine()
        self.machine.add_image()
        self.worker = Agent(self.machine).worker
        self.connector = FakeConnector()
        self.logs = FakeLogs()
        self.checks = FakeChecks()
        self.meter = FakeMeter()
        self.doctor = FakeDoctor()
        self.session = Session(
            connector=self.connector,
            worker=self.worker,
            streams=Streams(
                connector=self.connector,
                runtime=FakeRuntime(self.machine),
                logs=self.logs,
                answers=Answers(checks=self.checks, meter=self.meter, doctor=self.doctor),
                commits=FakeCommits(),
                over=self.worker.over,
                now_ms=lambda: 7_000,
            ),
            servers=Servers(servers),
            register=dpb.Register(node_id="id1", node_name="n1"),
            holdings=Holdings(),
            chance=random.Random(1),
        )

    async def accept(self, *, register: bool = True) -> tuple[str, Leader]:
        """The next connection of the agent, and where it was made to."""
        address, leader = await self.connector.sessions.get()
        first = await leader.receive()
        assert first.register.node_id == "id1"
        if register:
            await leader.send(dpb.LeaderMessage(registered=dpb.Registered(session_id="s1", heartbeat_interval=5000)))
        return address, leader


@contextlib.asynccontextmanager
async def alive(*servers: str) -> AsyncIterator[Wired]:
    wired = Wired(servers or ("cp1", "cp2"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wired.worker.run()), group.create_task(wired.session.run())]
        yield wired
        for each in tasks:
            each.cancel()


def complete(*tasks: pb.Task) -> dpb.LeaderMessage:
    revision = pb.Revision(meta=pb.Meta(id="r1"), template=template("/web"))
    return dpb.LeaderMessage(
        assignment=dpb.Assignment(
            type=dpb.Assignment.TYPE_COMPLETE, results_in=1, tasks=tasks, revisions=[revision], network=NETWORK
        )
    )


async def report(leader: Leader) -> dpb.StatusReport:
    """The next report, heartbeats left aside."""
    while True:
        message = await leader.receive()
        if message.HasField("statuses"):
            return message.statuses


async def acknowledge_until_running(leader: Leader) -> None:
    while True:
        batch = await report(leader)
        await leader.send(dpb.LeaderMessage(acknowledged=dpb.StatusAcknowledged(sequence=batch.sequence)))
        if any(each.status.state == states.RUNNING for each in batch.tasks):
            return


@virtual
async def test_everything_is_told_again_in_a_new_session() -> None:
    """The leader may be a new one. The container never noticed."""
    async with alive() as wired:
        _, leader = await wired.accept()
        await leader.send(complete(task("web-1-a")))
        await acknowledge_until_running(leader)
        await leader.close("the leader was killed")
        _, other = await wired.accept()
        batch = await report(other)
        assert [(each.task_id, each.status.state) for each in batch.tasks] == [("web-1-a", states.RUNNING)]
        assert batch.sequence == 1
        assert wired.machine.starts == {"web-1-a": 1}


@virtual
async def test_heartbeats_come_when_they_should() -> None:
    """Every five seconds, with the number of the assignment that is held."""
    async with alive() as wired:
        _, leader = await wired.accept()
        await leader.send(complete())
        assert (await leader.receive()).network_applied.sequence == 1
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            assert (await leader.receive()).heartbeat.sequence == 1
        assert 14.9 < asyncio.get_running_loop().time() - began < 15.1


@virtual
async def test_an_assignment_is_acknowledged_once_the_network_is_as_it_says() -> None:
    """Not while that fails; and a number of an earlier session is never told in a later one."""
    async with alive() as wired:
        _, leader = await wired.accept()
        wired.machine.network_failure = Temporary("nft is not installed")
        await leader.send(complete())
        assert (await leader.receive()).HasField("heartbeat")
        await leader.close("the leader was killed")
        _, other = await wired.accept()
        wired.machine.network_failure = None
        assert (await other.receive()).HasField("heartbeat"), "nothing was assigned in this session"
        await other.send(complete())
        assert (await other.receive()).network_applied.sequence == 1
        change = dpb.Assignment(
            type=dpb.Assignment.TYPE_INCREMENTAL,
            applies_to=1,
            results_in=2,
            services=[dpb.NetworkService(id="s1", name="web")],
        )
        await other.send(dpb.LeaderMessage(assignment=change))
        assert (await other.receive()).network_applied.sequence == 2
        assert set(wired.machine.services) == {"s1"}


@virtual
async def test_a_gap_asks_for_everything() -> None:
    """And says what is wrong."""
    async with alive() as wired:
        _, leader = await wired.accept()
        increment = dpb.Assignment(type=dpb.Assignment.TYPE_INCREMENTAL, applies_to=3, results_in=4)
        await leader.send(dpb.LeaderMessage(assignment=increment))
        assert "builds on 3" in (await leader.receive()).resync.why


@virtual
async def test_a_redirect_is_followed_at_once() -> None:
    """To the leader that the follower names."""
    async with alive("cp1") as wired:
        address, follower = await wired.accept(register=False)
        assert address == "cp1"
        await follower.send(dpb.LeaderMessage(redirect=dpb.Redirect(leader_address="cp9")))
        address, _ = await wired.accept()
        assert address == "cp9"
        assert asyncio.get_running_loop().time() < 0.01


@virtual
async def test_servers_that_point_at_each_other_are_asked_less_and_less_often() -> None:
    """An agent must not spin while the control plane makes up its mind."""
    async with alive("cp1") as wired:
        for number in range(20):
            _, follower = await wired.accept(register=False)
            await follower.send(dpb.LeaderMessage(redirect=dpb.Redirect(leader_address=f"cp{number % 2}")))
        assert asyncio.get_running_loop().time() > 10


@virtual
async def test_every_server_is_tried_with_pauses() -> None:
    """In turn, after 0.1 s × 2ⁿ up to 2 s, less up to half by chance."""
    async with alive("cp1", "cp2", "cp3") as wired:
        wired.connector.unreachable = {"cp1", "cp2", "cp3"}
        await asyncio.sleep(20)
        assert wired.connector.tried[:4] == ["cp1", "cp2", "cp3", "cp1"]
        assert 12 <= len(wired.connector.tried) <= 30
        wired.connector.unreachable = set()
        await wired.accept()
        assert asyncio.get_running_loop().time() < 22.1


@virtual
async def test_a_server_that_does_not_answer_is_left() -> None:
    """After five seconds."""
    async with alive() as wired:
        await wired.accept(register=False)
        address, _ = await wired.accept()
        assert address == "cp2"
        assert 5 < asyncio.get_running_loop().time() < 6


@virtual
async def test_a_command_goes_both_ways() -> None:
    """Input in, output and exit code out, on a stream that the agent opened."""
    async with alive() as wired:
        _, leader = await wired.accept()
        await leader.send(complete(task("web-1-a")))
        await acknowledge_until_running(leader)
        request = dpb.TaskExecRequest(task_id="web-1-a", start=cpb.ExecStart(command=["cat"], stdin=True))
        await leader.send(dpb.LeaderMessage(open_stream=dpb.OpenStream(stream_id="x", exec=request)))
        stream = await wired.connector.streams.get()
        opened = (await stream.receive()).open
        assert (opened.session_id, opened.stream_id) == ("s1", "x")
        assert (await stream.receive()).output.started == "web-1-a"
        await stream.send(dpb.StreamFrame(input=cpb.ExecRequest(stdin=b"hello")))
        assert (await stream.receive()).output.stdout == b"hello"
        await stream.send(dpb.StreamFrame(input=cpb.ExecRequest(stdin_closed=True)))
        assert (await stream.receive()).output.HasField("exit_code")


@virtual
async def test_a_stream_for_nobody_says_so() -> None:
    """And the session goes on."""
    async with alive() as wired:
        _, leader = await wired.accept()
        await leader.send(complete())
        for request in (
            dpb.OpenStream(stream_id="x", exec=dpb.TaskExecRequest(task_id="nobody")),
            dpb.OpenStream(stream_id="y", logs=dpb.TaskLogsRequest(task_id="nobody")),
            dpb.OpenStream(stream_id="z"),
        ):
            await leader.send(dpb.LeaderMessage(open_stream=request))
            stream = await wired.connector.streams.get()
            assert (await stream.receive()).HasField("open")
            assert (await stream.receive()).error.message
            with contextlib.suppress(LinkLost):
                await stream.receive()
                raise AssertionError("the stream goes on after an error")
        assert (await leader.receive()).HasField("network_applied")
        assert (await leader.receive()).HasField("heartbeat")


@virtual
async def test_followed_logs_end_with_the_session() -> None:
    """Nothing of a lost session goes on in the background."""
    async with alive() as wired:
        _, leader = await wired.accept()
        await leader.send(complete(task("web-1-a")))
        await acknowledge_until_running(leader)
        wired.logs.lines["web-1-a"] = [cpb.LogLine(text=b"hello", time_ns=10**18)]
        request = dpb.TaskLogsRequest(task_id="web-1-a", follow=True, tail=-1)
        await leader.send(dpb.LeaderMessage(open_stream=dpb.OpenStream(stream_id="x", logs=request)))
        stream = await wired.connector.streams.get()
        await stream.receive()
        assert (await stream.receive()).logs.lines[0].text == b"hello"
        await leader.close("the leader was killed")
        with contextlib.suppress(LinkLost):
            await stream.receive()
            raise AssertionError("the stream outlives the session")


@virtual
async def test_a_node_is_measured_when_somebody_asks() -> None:
    """Once, and never by itself: an hour without a question is an hour without a look."""
    async with alive() as wired:
        _, leader = await wired.accept()
        await leader.send(complete(task("web-1-a")))
        await acknowledge_until_running(leader)
        assert wired.worker.running == {"web-1-a": ["web-1-a"]}
        await asyncio.sleep(1800)
        assert wired.meter.asked == []
        wired.meter.counters = dpb.NodeCounters(usage=cpb.NodeUsage(at_ns=7))
        request = dpb.NodeUsageRequest(tasks=True)
        await leader.send(dpb.LeaderMessage(open_stream=dpb.OpenStream(stream_id="x", usage=request)))
        stream = await wired.connector.streams.get()
        assert (await stream.receive()).open.stream_id == "x"
        assert (await stream.receive()).counters == wired.meter.counters
        assert wired.meter.asked == [request]


@virtual
async def test_a_node_looks_at_its_machine_when_somebody_asks_and_tells_its_clock_first() -> None:
    async with alive() as wired:
        _, leader = await wired.accept()
        wired.doctor.findings = [findings.ok("disk", "half of it is free")]
        asked = dpb.OpenStream(stream_id="x", diagnosis=dpb.NodeDiagnosisRequest())
        await leader.send(dpb.LeaderMessage(open_stream=asked))
        stream = await wired.connector.streams.get()
        assert (await stream.receive()).open.stream_id == "x"
        assert (await stream.receive()).diagnosis.now == 7_000
        assert list((await stream.receive()).diagnosis.findings) == wired.doctor.findings
        assert (await stream.receive()).end


@virtual
async def test_an_agent_that_leaves_says_so_last_and_holds_no_session_any_more() -> None:
    """It waits until the leader has ended the session: only then it is sure to have heard."""
    async with alive() as wired:
        _, leader = await wired.accept()
        loop = asyncio.get_running_loop()
        leaving = loop.create_task(wired.session.leave(30_000))
        while not (message := await leader.receive()).HasField("leaving"):
            continue
        assert message.leaving.back_within == 30_000
        await asyncio.sleep(0.5)
        assert not leaving.done()
        await leader.close("the agent has gone in order")
        await leaving
        await asyncio.sleep(10)
        assert wired.connector.sessions.empty(), "with another session it would be back"


@virtual
async def test_an_agent_does_not_wait_for_a_leader_that_is_away() -> None:
    """Not for long when it does not answer, not at all without a session."""
    loop = asyncio.get_running_loop()
    async with alive() as wired:
        await wired.accept()
        began = loop.time()
        await wired.session.leave(30_000)
        assert loop.time() - began < 3
    async with alive() as wired:
        wired.connector.unreachable |= {"cp1", "cp2"}
        await asyncio.sleep(5)
        began = loop.time()
        await wired.session.leave(30_000)
        assert loop.time() == began
