"""Agents are served by who leads, sent on by who does not, and told what they must run."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.core import nodes
from controlplane.core.trust.believed import Believed
from controlplane.dispatcher import streams
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.dispatcher.peers import Peers
from controlplane.dispatcher.session import SILENCE_S, Session
from controlplane.dispatcher.streams import NodeUnreachable
from controlplane.store import typed
from controlplane.store.snapshots import Editor
from protos import kinds
from protos.link import LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.aio import bounded
from tests.support.fake_agent import MemoryLink, pair

NETWORK = wire.NodeNetwork(cluster_range="10.112.0.0/16", service_range="10.201.0.0/16")


class World:
    """A dispatcher over a state that the test edits, and its agents."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._editor = Editor()
        self._group = group
        numbers = itertools.count(1)
        self.reports: list[tuple[str, int]] = []
        self.holds = True
        self.dispatcher = Dispatcher(
            self._editor.snapshot,
            lambda: ("cp2", "192.0.2.2:7400"),
            lambda: f"id{next(numbers)}",
            lambda _lost, timeout_s: asyncio.sleep(timeout_s),
        )
        self.serving: list[asyncio.Task[None]] = []

    def lead(self) -> None:
        self.dispatcher.lead(self._note, NETWORK, lambda: self.holds)
        self.serving.append(self._group.create_task(self.dispatcher.work()))

    def put(self, *values: kinds.StoredObject) -> None:
        changes = []
        for value in values:
            key = kinds.key(value)
            decoded = typed.decode(key, typed.encode(value), value.meta.version)
            changes.append(self._editor.replace(kinds.of(value), key, decoded))
        self.dispatcher.notice([change for change in changes if change is not None])

    def remove(self, value: kinds.StoredObject) -> None:
        change = self._editor.replace(kinds.of(value), kinds.key(value), None)
        assert change is not None, "it was there"
        self.dispatcher.notice([change])

    def call(self) -> MemoryLink:
        """An agent calls; its end of the link."""
        mine, theirs = pair()
        self.serving.append(self._group.create_task(self.dispatcher.serve(theirs)))  # type: ignore[arg-type]
        return mine

    async def join(self, name: str = "n1") -> MemoryLink:
        link = self.call()
        await link.send(wire.AgentMessage(register=wire.Register(node_id=name, node_name=name)))
        assert (await said(link)).WhichOneof("message") == "registered"
        return link

    def _note(self, session: Session, report: wire.StatusReport) -> None:
        self.reports.append((session.info.node_name, report.sequence))


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as group:
        made = World(group)
        yield made
        made.dispatcher.follow("the test is over")
        for task in made.serving:
            task.cancel()


async def said(link: MemoryLink) -> Any:
    async with asyncio.timeout(30):
        return await link.receive()


@bounded(60, virtual_time=True)
async def test_who_does_not_lead_names_the_leader() -> None:
    async with world() as made:
        link = made.call()
        await link.send(wire.AgentMessage(register=wire.Register(node_id="n1", node_name="n1")))
        assert (await said(link)).redirect.leader_address == "192.0.2.2:7400"
        with pytest.raises(LinkLost):
            await said(link)


@bounded(60, virtual_time=True)
@pytest.mark.parametrize(("leads_after_s", "hears"), [(4, "registered"), (5, "redirect")])
async def test_an_agent_that_has_lost_the_leader_is_served_by_whoever_leads_soon(
    leads_after_s: float, hears: str
) -> None:
    """Also where the leader was, whose process may be a new one. After a while it is told what is known."""
    async with world() as made:
        link = made.call()
        register = wire.Register(node_id="n1", node_name="n1", lost_leader="192.0.2.2:7400")
        await link.send(wire.AgentMessage(register=register))
        await asyncio.sleep(leads_after_s)
        made.lead()
        led_at = asyncio.get_running_loop().time()
        assert (await said(link)).WhichOneof("message") == hears
        assert asyncio.get_running_loop().time() == led_at


@bounded(60, virtual_time=True)
async def test_an_agent_that_leaves_has_its_session_ended_and_is_remembered_until_it_is_back() -> None:
    async with world() as made:
        made.lead()
        link = await made.join()
        await link.send(wire.AgentMessage(leaving=wire.Leaving(back_within=30_000)))
        with pytest.raises(LinkLost):
            await said(link)
        await asyncio.sleep(1)
        assert made.dispatcher.sessions.announced() == {"n1": 30_000}
        again = await made.join()
        assert made.dispatcher.sessions.announced() == {}
        await again.close("its machine has died")
        await asyncio.sleep(1)
        assert made.dispatcher.sessions.announced() == {}, "the second one has said nothing"


@bounded(60, virtual_time=True)
async def test_what_an_older_session_says_last_does_not_concern_a_newer_one() -> None:
    """The agent is there: somebody has started it again at once."""
    async with world() as made:
        made.lead()
        older = await made.join()
        newer = await made.join()
        await older.send(wire.AgentMessage(leaving=wire.Leaving(back_within=30_000)))
        await asyncio.sleep(1)
        assert made.dispatcher.sessions.announced() == {}
        await newer.send(wire.AgentMessage(leaving=wire.Leaving(back_within=2_000)))
        await asyncio.sleep(1)
        assert made.dispatcher.sessions.announced() == {"n1": 2_000}
        made.dispatcher.follow("another leads")
        made.lead()
        assert made.dispatcher.sessions.announced() == {}, "it is long ago for another leadership"


@bounded(60, virtual_time=True)
async def test_nothing_is_assigned_before_the_nodes_record_is_there() -> None:
    async with world() as made:
        made.lead()
        link = await made.join()
        made.put(build.revision(build.service()), build.task(1, ident="web-1-a"))
        made.put(build.node("n1"))
        message = (await said(link)).assignment
        assert message.type == wire.Assignment.TYPE_COMPLETE
        assert [task.meta.id for task in message.tasks] == ["web-1-a"]
        assert message.network.subnet == "10.112.1.0/24"


@bounded(60, virtual_time=True)
async def test_changes_come_as_increments_and_a_gap_brings_everything() -> None:
    async with world() as made:
        made.lead()
        made.put(build.node("n1"), build.revision(build.service()))
        link = await made.join()
        first = (await said(link)).assignment
        made.put(build.task(1))
        second = (await said(link)).assignment
        assert (second.type, second.applies_to) == (wire.Assignment.TYPE_INCREMENTAL, first.results_in)
        await link.send(wire.AgentMessage(resync=wire.Resync(why="test")))
        third = (await said(link)).assignment
        assert third.type == wire.Assignment.TYPE_COMPLETE
        assert third.results_in > second.results_in


@bounded(120, virtual_time=True)
async def test_an_agent_that_missed_the_last_message_is_told_everything_again() -> None:
    async with world() as made:
        made.lead()
        made.put(build.node("n1"))
        link = await made.join()
        await said(link)
        for _ in range(2):
            await link.send(wire.AgentMessage(heartbeat=wire.Heartbeat(sequence=0)))
        assert (await said(link)).assignment.type == wire.Assignment.TYPE_COMPLETE


@bounded(60, virtual_time=True)
async def test_only_who_certainly_leads_answers_what_fenced_tasks_live_by() -> None:
    """A leader that slept through its lease says nothing, though it does not know yet that it is deposed."""
    async with world() as made:
        made.lead()
        made.put(build.node("n1"))
        link = await made.join()
        await said(link)
        for number in (0, 1):
            await link.send(wire.AgentMessage(heartbeat=wire.Heartbeat(sequence=9, number=number)))
        assert (await said(link)).heard.number == 1, "the first one asked for no answer"
        made.holds = False
        await link.send(wire.AgentMessage(heartbeat=wire.Heartbeat(sequence=9, number=2)))
        await link.send(wire.AgentMessage(resync=wire.Resync(why="what comes next was sent after the heartbeat")))
        assert (await said(link)).WhichOneof("message") == "assignment"


@bounded(60, virtual_time=True)
async def test_a_name_that_another_node_has_is_refused_with_the_remedy() -> None:
    async with world() as made:
        made.lead()
        made.put(build.node("n1"))
        link = made.call()
        await link.send(wire.AgentMessage(register=wire.Register(node_id="other", node_name="n1")))
        with pytest.raises(LinkLost, match=r"belongs to another node.*orchctl delete node n1"):
            await said(link)


@bounded(60, virtual_time=True)
async def test_a_newer_session_ends_the_older() -> None:
    async with world() as made:
        made.lead()
        older = await made.join()
        newer = await made.join()
        with pytest.raises(LinkLost, match="newer session"):
            await said(older)
        assert len(made.dispatcher.sessions.descriptions()) == 1
        await newer.close()


@bounded(60, virtual_time=True)
async def test_a_silent_agent_loses_its_session() -> None:
    async with world() as made:
        made.lead()
        link = await made.join()
        with pytest.raises(LinkLost, match="nothing was heard"):
            await said(link)
        assert asyncio.get_running_loop().time() >= SILENCE_S
        assert made.dispatcher.sessions.descriptions() == {}


@bounded(60, virtual_time=True)
async def test_reports_are_taken_once_and_in_order() -> None:
    async with world() as made:
        made.lead()
        link = await made.join()
        for sequence in (1, 2, 1, 2, 3):
            await link.send(wire.AgentMessage(statuses=wire.StatusReport(sequence=sequence)))
        acknowledged = [(await said(link)).acknowledged.sequence for _ in range(2)]
        assert acknowledged == [1, 2], "what comes again is acknowledged again"
        assert made.reports == [("n1", 1), ("n1", 2), ("n1", 3)]


@bounded(60, virtual_time=True)
async def test_a_stream_is_opened_by_the_agent() -> None:
    async with world() as made:
        made.lead()
        link = await made.join()
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(made.dispatcher.streams.open("n1", wire.OpenStream()))
            request = (await said(link)).open_stream
            mine, theirs = pair()
            opened = wire.StreamOpened(session_id="s", stream_id=request.stream_id)
            await mine.send(wire.StreamFrame(open=opened))
            serving = group.create_task(made.dispatcher.streams.serve(theirs))  # type: ignore[arg-type]
            stream = await opening
            await mine.send(wire.StreamFrame(end=True))
            assert (await stream.receive()).end
            await stream.close()
            await serving


@bounded(60, virtual_time=True)
async def test_a_node_without_a_session_and_one_that_does_not_answer_are_told_apart() -> None:
    async with world() as made:
        made.lead()
        with pytest.raises(NodeUnreachable, match="no session"):
            await made.dispatcher.streams.open("n1", wire.OpenStream())
        await made.join()
        with pytest.raises(NodeUnreachable, match=f"within {streams.OPEN_TIMEOUT_S:g} s"):
            await made.dispatcher.streams.open("n1", wire.OpenStream())


# What concerns whom ---------------------------------------------------------------------------------------------------


class Listener:
    """A session of which only the wakes count."""

    def __init__(self, name: str) -> None:
        self.info = nodes.Session(
            session_id="s", node_id=name, node_name=name, description=pb.NodeDescription(), labels={}
        )
        self.applied = 0
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def open_stream(self, request: wire.OpenStream) -> None:
        raise AssertionError(f"nobody opens {request.stream_id} here")

    def acknowledge(self, sequence: int) -> None:
        raise AssertionError(f"nobody reports {sequence} here")

    def end(self, why: str) -> None:
        """The test is over."""


@bounded(20, virtual_time=True)
async def test_what_others_are_not_told_of_a_node_wakes_nobody_else() -> None:
    """A drain of fifty tasks writes the record a hundred times, and there may be thousands of sessions."""
    async with world() as one:
        one.lead()
        drained, other = Listener("n1"), Listener("n2")
        one.dispatcher.sessions.add(drained)
        one.dispatcher.sessions.add(other)
        record = build.node("n1")
        record.status.subnet, record.status.description.address = "10.112.1.0/24", "192.0.2.1"
        one.put(record, build.node("n2"))
        before = other.woken
        for left in (3, 2, 1):
            record.status.message = f"{left} tasks are left"
            count = drained.woken
            one.put(record)
            assert drained.woken > count, "it is told of its labels"
        assert other.woken == before
        record.status.description.address = "192.0.2.7"
        one.put(record)
        assert other.woken > before
        before = other.woken
        one.remove(record)
        assert other.woken > before


@bounded(20, virtual_time=True)
async def test_every_node_is_told_at_once_when_somebody_is_no_member_any_more_and_nobody_of_no_news() -> None:
    """Whether this instance leads already or not."""
    async with world() as one:
        one.dispatcher.believe(Believed(nodes={"n1": 5, "n2": 5}))
        one.lead()
        listener = Listener("n1")
        one.dispatcher.sessions.add(listener)
        one.put(build.node("n1"), build.node("n2"))
        before = listener.woken
        one.dispatcher.believe(Believed(nodes={"n2": 5, "n1": 5}))
        assert listener.woken == before
        one.dispatcher.believe(Believed(nodes={"n1": 5}))
        assert listener.woken > before


def test_the_peers_tell_since_when_each_of_them_is_a_member() -> None:
    """0 of one that is none; and the network's settings tell it of instances."""
    peers = Peers(NETWORK, Believed(nodes={"n1": 7}, instances={"cp1": 3}))
    known = {name: build.node(name) for name in ("n1", "n2")}
    for number, node in enumerate(known.values()):
        node.status.subnet, node.status.description.address = f"10.112.{number}.0/24", f"192.0.2.{number}"
    assert [(peer.node_id, peer.trusted_since) for peer in peers.of(known)] == [("n1", 7), ("n2", 0)]
    assert dict(peers.settings.instances) == {"cp1": 3}
    peers.believe(Believed(nodes={"n2": 9}))
    assert [(peer.node_id, peer.trusted_since) for peer in peers.of(known)] == [("n1", 0), ("n2", 9)]
    assert dict(peers.settings.instances) == {}


def test_the_peers_are_worked_out_once_and_stay_the_same_value_while_nothing_differs() -> None:
    peers = Peers(NETWORK)
    first, second = build.node("n1"), build.node("n2")
    for number, node in enumerate((first, second)):
        node.status.subnet, node.status.description.address = f"10.112.{number}.0/24", f"192.0.2.{number}"
    found = peers.of({"1": first, "2": second})
    assert [peer.node_id for peer in found] == ["n1", "n2"]
    second.status.message = "1 task is left"
    assert peers.of({"1": first, "2": second}) is found
    second.status.description.address = "192.0.2.9"
    assert peers.of({"1": first, "2": second}) != found
