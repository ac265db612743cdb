"""Agents are told of services as these change, and a task is let go when every agent has applied that it leaves."""

import asyncio

from controlplane.core.withdrawal import BOUND_MS
from protos import states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.aio import bounded
from tests.support.fake_agent import MemoryLink
from tests.unit.controlplane.dispatcher.test_dispatcher import World, said, world

SOON_S = 1.0


def running(slot: int = 1, node: str = "n1", **more: object) -> pb.Task:
    return build.task(slot, node=node, ident=f"web-{slot}", address=f"10.112.1.{slot}", **more)  # type: ignore[arg-type]


async def assigned(link: MemoryLink) -> wire.Assignment:
    assignment: wire.Assignment = (await said(link)).assignment
    return assignment


async def nothing_is_said(link: MemoryLink, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            message = await link.receive()
    except TimeoutError:
        return
    raise AssertionError(f"not expected: {message}")


async def apply(link: MemoryLink, assignment: wire.Assignment) -> None:
    applied = wire.NetworkApplied(sequence=assignment.results_in)
    await link.send(wire.AgentMessage(network_applied=applied))


def ready_ones(assignment: wire.Assignment) -> list[str]:
    return [one.task_id for service in assignment.services for one in service.endpoints if one.ready]


async def two_nodes(made: World) -> tuple[MemoryLink, MemoryLink]:
    """A service with a task on each of two nodes, whose agents have applied that."""
    made.lead()
    service = build.service()
    made.put(build.node("n1"), build.node("n2"), service, build.revision(service), running(1), running(2, "n2"))
    links = await made.join("n1"), await made.join("n2")
    for link in links:
        first = await assigned(link)
        assert first.type == wire.Assignment.TYPE_COMPLETE
        assert ready_ones(first) == ["web-1", "web-2"]
        await apply(link, first)
    await asyncio.sleep(SOON_S)
    return links


@bounded(60, virtual_time=True)
async def test_every_node_is_told_of_a_service_that_changes_and_of_one_that_goes() -> None:
    async with world() as made:
        first, second = await two_nodes(made)
        made.put(running(1, ready=False))
        for link in (first, second):
            message = await assigned(link)
            assert message.type == wire.Assignment.TYPE_INCREMENTAL
            assert ready_ones(message) == ["web-2"]
            assert not message.tasks, "its own status is not sent back to an agent"
        made.remove(build.service())
        for link in (first, second):
            assert list((await assigned(link)).removed_services) == ["id-web"]


@bounded(60, virtual_time=True)
async def test_what_changes_often_is_told_together() -> None:
    """The first at once, then what has gathered."""
    async with world() as made:
        first, _ = await two_nodes(made)
        ready = True
        for _ in range(100):
            ready = not ready
            made.put(running(2, "n2", ready=ready))
            await asyncio.sleep(0.001)
        ready_each = [ready_ones(await assigned(first))]
        try:
            while True:
                async with asyncio.timeout(SOON_S):
                    ready_each.append(ready_ones(await assigned(first)))
        except TimeoutError:
            pass
        assert 2 <= len(ready_each) <= 5
        assert ready_each[-1] == ["web-1", "web-2"], "the last word is the newest"


@bounded(60, virtual_time=True)
async def test_a_task_is_let_go_when_every_node_has_applied_that_it_leaves() -> None:
    async with world() as made:
        first, second = await two_nodes(made)
        made.put(running(1, desired=pb.DESIRED_STATE_SHUTDOWN))
        told = [await assigned(first), await assigned(second)]
        assert [ready_ones(message) for message in told] == [["web-2"], ["web-2"]]
        assert [len(message.withdrawn_tasks) for message in told] == [0, 0]
        await apply(first, told[0])
        await nothing_is_said(first, BOUND_MS / 1000 / 2)
        await apply(second, told[1])
        assert list((await assigned(first)).withdrawn_tasks) == ["web-1"]
        await nothing_is_said(second, SOON_S)


@bounded(60, virtual_time=True)
async def test_a_node_that_does_not_answer_holds_nothing_up_for_long() -> None:
    async with world() as made:
        first, second = await two_nodes(made)
        loop = asyncio.get_running_loop()
        began = loop.time()
        made.put(running(1, desired=pb.DESIRED_STATE_SHUTDOWN))
        await apply(first, await assigned(first))
        await assigned(second)
        assert list((await assigned(first)).withdrawn_tasks) == ["web-1"]
        assert BOUND_MS / 1000 <= loop.time() - began <= BOUND_MS / 1000 + 0.1


@bounded(60, virtual_time=True)
async def test_a_node_is_waited_for_until_it_is_down() -> None:
    """While its agent is away its kernel still sends; the agent may be back in a moment."""
    async with world() as made:
        first, second = await two_nodes(made)
        made.put(running(1, desired=pb.DESIRED_STATE_SHUTDOWN))
        await apply(first, await assigned(first))
        await assigned(second)
        loop = asyncio.get_running_loop()
        began = loop.time()
        made.put(build.node("n2", state=pb.NODE_STATE_DISCONNECTED))
        await nothing_is_said(first, BOUND_MS / 1000 / 2)
        made.put(build.node("n2", state=pb.NODE_STATE_DOWN))
        withdrawn: list[str] = []
        while not withdrawn:
            withdrawn = list((await assigned(first)).withdrawn_tasks)
        assert withdrawn == ["web-1"]
        assert loop.time() - began < BOUND_MS / 1000 / 2 + SOON_S


@bounded(60, virtual_time=True)
async def test_a_node_whose_agent_is_expected_back_keeps_its_connections_until_that_is_late() -> None:
    async with world() as made:
        first, second = await two_nodes(made)
        await second.send(wire.AgentMessage(leaving=wire.Leaving(back_within=30_000)))
        away = build.node("n2", state=pb.NODE_STATE_DISCONNECTED)
        away.status.expected_by = away.status.since + 30_000
        made.put(away)
        made.put(running(3))
        assert ready_ones(await assigned(first)) == ["web-1", "web-2", "web-3"]
        made.put(build.node("n2", state=pb.NODE_STATE_DOWN))
        assert ready_ones(await assigned(first)) == ["web-1", "web-3"]


@bounded(60, virtual_time=True)
async def test_a_node_that_was_lost_is_waited_for_once_and_not_for_each_task() -> None:
    """Three seconds after its loss its agent is not being started again: it holds nobody up until it counts as down."""
    async with world() as made:
        first, second = await two_nodes(made)
        await second.close("its machine has died")
        made.put(build.node("n2", state=pb.NODE_STATE_DISCONNECTED))
        loop = asyncio.get_running_loop()
        lost = loop.time()
        made.put(running(1, desired=pb.DESIRED_STATE_SHUTDOWN))
        await apply_until_withdrawn(first, "web-1")
        assert BOUND_MS / 1000 - SOON_S < loop.time() - lost < BOUND_MS / 1000 + SOON_S
        made.put(running(4))
        told = await assigned(first)
        assert "web-4" in ready_ones(told)
        await apply(first, told)
        stopped = loop.time()
        made.put(running(4, desired=pb.DESIRED_STATE_SHUTDOWN))
        await apply_until_withdrawn(first, "web-4")
        assert loop.time() - stopped < SOON_S


async def apply_until_withdrawn(link: MemoryLink, name: str) -> None:
    while True:
        assignment = await assigned(link)
        await apply(link, assignment)
        if name in assignment.withdrawn_tasks:
            return


@bounded(60, virtual_time=True)
async def test_a_task_that_never_was_ready_is_let_go_at_once() -> None:
    async with world() as made:
        first, second = await two_nodes(made)
        made.put(build.task(3, states.PREPARING, ident="web-3", desired=pb.DESIRED_STATE_SHUTDOWN))
        withdrawn: list[str] = []
        while not withdrawn:
            withdrawn = list((await assigned(first)).withdrawn_tasks)
        assert withdrawn == ["web-3"]
        await nothing_is_said(second, SOON_S)


@bounded(60, virtual_time=True)
async def test_a_new_leader_starts_over_and_tells_a_new_session_everything() -> None:
    """What its predecessor told of a task that is to stop it cannot know."""
    async with world() as made:
        service = build.service()
        stopping = running(1, desired=pb.DESIRED_STATE_SHUTDOWN)
        made.put(build.node("n1"), build.node("n2"), service, build.revision(service), stopping)
        made.lead()
        first, second = await made.join("n1"), await made.join("n2")
        told = [await assigned(first), await assigned(second)]
        assert not told[0].withdrawn_tasks
        await apply(first, told[0])
        await apply(second, told[1])
        assert list((await assigned(first)).withdrawn_tasks) == ["web-1"]
        await first.send(wire.AgentMessage(resync=wire.Resync(why="test")))
        again = await assigned(first)
        assert again.type == wire.Assignment.TYPE_COMPLETE
        assert (list(again.withdrawn_tasks), len(again.services)) == (["web-1"], 1)
