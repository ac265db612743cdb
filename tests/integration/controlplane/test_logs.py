"""Logs through the whole API; a test plays the agents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world
from tests.support.api_world import apply_request, node, refusal, service, task
from tests.support.streams import Pipe, Serve

A_MOMENT_S = 5
MS = 1_000_000


class Agent:
    """An agent with the logs of its tasks; a followed log goes on with what the test adds."""

    def __init__(self, **logs: list[tuple[int, str]]) -> None:
        self.logs = {name.replace("_", "-"): list(lines) for name, lines in logs.items()}
        self.more: dict[str, asyncio.Queue[tuple[int, str] | None]] = {name: asyncio.Queue() for name in self.logs}
        self.requests: list[wire.TaskLogsRequest] = []

    async def __call__(self, pipe: Pipe, asked: wire.OpenStream) -> None:
        request = asked.logs
        self.requests.append(request)
        if request.task_id not in self.logs:
            await pipe.send(wire.StreamFrame(error=pb.Error(message="no log here")))
            return
        lines = [line for line in self.logs[request.task_id] if line[0] >= request.since * MS]
        for line in lines[-request.tail :] if request.tail > 0 else lines:
            await pipe.send(frame(line))
        while request.follow:
            line = await self.more[request.task_id].get()
            if line is None:
                break
            self.logs[request.task_id].append(line)
            await pipe.send(frame(line))
        await pipe.send(wire.StreamFrame(end=True))


def frame(line: tuple[int, str]) -> wire.StreamFrame:
    time_ns, text = line
    return wire.StreamFrame(logs=pb.LogsResponse(lines=[pb.LogLine(time_ns=time_ns, text=text.encode())]))


@contextlib.asynccontextmanager
async def world_with(folder: Path, **agents: Serve) -> AsyncIterator[api_world.World]:
    """A service `web` with a task `web-<n>-a` on each node `n<n>`."""
    async with api_world.opened(folder) as world:
        await world.stub.Apply(apply_request(service(replicas=len(agents))))
        for name, agent in agents.items():
            world.streams.agents[f"id-of-{name}"] = agent
            await world.put(node(name), task(f"web-{name[1:]}-a", node=f"id-of-{name}"))
        yield world


async def everything(call: AsyncIterator[pb.LogsResponse]) -> tuple[list[str], list[str]]:
    """Lines as `task text`, and notices."""
    lines, notices = [], []
    async for response in call:
        lines += [f"{line.task} {line.text.decode()}" for line in response.lines]
        notices += [response.notice] if response.notice else []
    return lines, notices


@contextlib.asynccontextmanager
async def following(world: api_world.World, **request: object) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """The callable waits for the next line or notice."""
    call = world.stub.Logs(pb.LogsRequest(follow=True, tail=-1, **request))  # type: ignore[arg-type]
    unread: list[str] = []

    async def next_one() -> str:
        while not unread:
            response = await aio.within(A_MOMENT_S, call.read(), what="a line or a notice")
            if response is grpc.aio.EOF:  # type: ignore[attr-defined]
                return "the end"
            unread.extend(f"{line.task} {line.text.decode()}" for line in response.lines)
            unread.extend([f"notice: {response.notice}"] if response.notice else [])
        return unread.pop(0)

    try:
        yield next_one
    finally:
        call.cancel()


@aio.bounded(20)
async def test_the_logs_of_all_replicas_are_merged_by_time(tmp_path: Path) -> None:
    one = Agent(web_1_a=[(1, "a"), (4, "d"), (5, "e")])
    two = Agent(web_2_a=[(2, "b"), (3, "c"), (6, "f")])
    async with world_with(tmp_path, n1=one, n2=two) as world:
        lines, notices = await everything(world.stub.Logs(pb.LogsRequest(service="web", tail=-1)))
        assert [line.split()[1] for line in lines] == list("abcdef")
        assert lines[:2] == ["web-1-a a", "web-2-a b"]
        assert notices == []


@aio.bounded(20)
async def test_tail_since_and_a_single_task_are_passed_on(tmp_path: Path) -> None:
    agent = Agent(web_1_a=[(1 * MS, "old"), (5 * MS, "b"), (6 * MS, "c")])
    async with world_with(tmp_path, n1=agent) as world:
        lines, _ = await everything(world.stub.Logs(pb.LogsRequest(task="web-1-a", tail=1, since=2)))
        assert lines == ["web-1-a c"]
        assert (agent.requests[0].tail, agent.requests[0].since, agent.requests[0].follow) == (1, 2, False)


@aio.bounded(20)
async def test_a_lost_node_is_a_notice_and_holds_nothing_up(tmp_path: Path) -> None:
    async with world_with(tmp_path, n1=Agent(web_1_a=[(1, "a")]), n2=Agent(web_2_a=[])) as world:
        await world.streams.lose("id-of-n2")
        lines, notices = await everything(world.stub.Logs(pb.LogsRequest(service="web", tail=-1)))
        assert lines == ["web-1-a a"]
        assert notices == ["web-2-a on node n2: its agent has no session"]


@aio.bounded(20)
async def test_an_agent_that_is_lost_in_the_middle_is_a_notice_too(tmp_path: Path) -> None:
    async def cut(pipe: Pipe, _: wire.OpenStream) -> None:
        await pipe.send(frame((1, "a")))
        await pipe.close("connection reset")

    async with world_with(tmp_path, n1=cut) as world:
        lines, notices = await everything(world.stub.Logs(pb.LogsRequest(service="web", tail=-1)))
        assert lines == ["web-1-a a"]
        assert notices == ["web-1-a on node n1: the log broke off: connection reset"]


@aio.bounded(20)
async def test_ended_tasks_count_while_their_node_has_the_log(tmp_path: Path) -> None:
    agent = Agent(web_1_a=[(3, "new")], web_1_old=[(1, "old")])
    async with world_with(tmp_path, n1=agent) as world:
        for name in ("web-1-old", "web-1-older"):
            ended = task(name, node="id-of-n1")
            ended.status.state = objects_pb2.TASK_STATE_FAILED
            await world.put(ended)
        lines, notices = await everything(world.stub.Logs(pb.LogsRequest(service="web", tail=-1)))
        assert lines == ["web-1-old old", "web-1-a new"]
        assert notices == [], "a log that is gone with its task is no news"


@aio.bounded(20)
async def test_following_shows_lines_as_they_come_and_tasks_as_they_start(tmp_path: Path) -> None:
    one, two = Agent(web_1_a=[(1, "a")]), Agent(web_2_b=[(5, "hello")])
    async with world_with(tmp_path, n1=one) as world, following(world, service="web") as told:
        assert await told() == "web-1-a a"
        one.more["web-1-a"].put_nowait((2, "b"))
        assert await told() == "web-1-a b"
        world.streams.agents["id-of-n2"] = two
        await world.put(node("n2"), task("web-2-b", node="id-of-n2", started=False))
        await world.put(task("web-2-b", node="id-of-n2"))
        assert await told() == "web-2-b hello"
        one.more["web-1-a"].put_nowait((9, "c"))
        assert await told() == "web-1-a c"


@aio.bounded(20)
async def test_who_follows_a_quiet_log_knows_that_it_was_found(tmp_path: Path) -> None:
    async with world_with(tmp_path, n1=Agent(web_1_a=[])) as world:
        call = world.stub.Logs(pb.LogsRequest(service="web", follow=True, tail=-1))
        assert await aio.within(A_MOMENT_S, call.read(), what="a word") == pb.LogsResponse()
        call.cancel()


@aio.bounded(20)
async def test_following_goes_on_when_a_lost_node_returns_without_repeating_lines(tmp_path: Path) -> None:
    agent = Agent(web_1_a=[(1 * MS, "a"), (2 * MS, "b")])
    async with world_with(tmp_path, n1=agent) as world, following(world, service="web") as told:
        assert [await told(), await told()] == ["web-1-a a", "web-1-a b"]
        await world.streams.lose("id-of-n1")
        assert await told() == "notice: web-1-a on node n1: the log broke off: connection reset"
        await world.put(node("n1", state=objects_pb2.NODE_STATE_DISCONNECTED))
        agent.logs["web-1-a"].append((2 * MS + 1, "while it was away"))
        agent.more["web-1-a"] = asyncio.Queue()
        world.streams.agents["id-of-n1"] = agent
        await world.put(node("n1"))
        assert await told() == "web-1-a while it was away"
        agent.more["web-1-a"].put_nowait((4 * MS, "back"))
        assert await told() == "web-1-a back"
        assert agent.requests[-1].since == 2


@aio.bounded(20)
async def test_following_ends_with_the_task_or_with_the_service(tmp_path: Path) -> None:
    agent = Agent(web_1_a=[(1, "a")])
    async with (
        world_with(tmp_path, n1=agent) as world,
        following(world, service="web") as of_service,
        following(world, task="web-1-a") as of_task,
    ):
        assert [await of_service(), await of_task()] == ["web-1-a a", "web-1-a a"]
        for _ in range(2):
            agent.more["web-1-a"].put_nowait(None)
        ended = task("web-1-a", node="id-of-n1")
        ended.status.state = objects_pb2.TASK_STATE_COMPLETE
        await world.put(ended)
        assert await of_task() == "the end"
        listed = await world.stub.List(pb.ListRequest(kind="service"))
        await world.remove(ended)
        await world.remove(listed.objects[0].service)
        assert await of_service() == "the end"


@aio.bounded(30)
async def test_a_slow_reader_gets_every_line_of_a_long_log(tmp_path: Path) -> None:
    async def chatty(pipe: Pipe, _: wire.OpenStream) -> None:
        for batch in range(100):
            lines = [pb.LogLine(time_ns=batch * 100 + n, text=b"x" * 1000) for n in range(100)]
            await pipe.send(wire.StreamFrame(logs=pb.LogsResponse(lines=lines)))
        await pipe.send(wire.StreamFrame(end=True))

    async with world_with(tmp_path, n1=chatty, n2=chatty) as world:
        seen = []
        async for response in world.stub.Logs(pb.LogsRequest(service="web", tail=-1)):
            await asyncio.sleep(0)
            seen += [line.time_ns for line in response.lines]
        assert len(seen) == 20_000
        assert seen == sorted(seen)


@aio.bounded(20)
async def test_only_the_leader_answers(tmp_path: Path) -> None:
    async with world_with(tmp_path, n1=Agent(web_1_a=[])) as world:
        world.election.now = api_world.ports.Leader(name="cp2", address="10.0.0.2:7400")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await everything(world.stub.Logs(pb.LogsRequest(service="web")))
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.leader == "10.0.0.2:7400"


@aio.bounded(20)
async def test_what_has_no_log_is_refused(tmp_path: Path) -> None:
    async with world_with(tmp_path, n1=Agent(web_1_a=[])) as world:
        await world.put(task("web-9-z", started=False))
        for request, expected in (
            (pb.LogsRequest(service="wbe"), (grpc.StatusCode.NOT_FOUND, "web")),
            (pb.LogsRequest(), (grpc.StatusCode.INVALID_ARGUMENT, "")),
            (pb.LogsRequest(service="web", task="web-1-a"), (grpc.StatusCode.INVALID_ARGUMENT, "")),
            (pb.LogsRequest(task="web-9-z"), (grpc.StatusCode.FAILED_PRECONDITION, "")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await everything(world.stub.Logs(request))
            code, error = refusal(raised.value)
            assert code is expected[0], request
            assert expected[1] in error.hint
