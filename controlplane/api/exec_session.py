"""Exec: carries one command's input and output between the caller and the agent of the task's node.

The rule: whichever side ends, the other is told. A caller that goes away ends the command; an agent that is lost ends
the call with an error that names the node.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from controlplane.api import caller, ports, task_streams
from controlplane.core import container_names, lookup
from controlplane.core import request_errors as errors
from controlplane.core import tasks as task_rules
from controlplane.store import snapshots
from protos import containers, kinds, states
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

Send = Callable[[pb.ExecResponse], Awaitable[object]]


async def serve(
    state: snapshots.Snapshot, streams: ports.Streams, requests: AsyncIterator[pb.ExecRequest], send: Send
) -> None:
    """Sends responses to the caller, the exit code last. Raises Invalid, Unknown, NotNow or NotReachable."""
    start = await _first(requests)
    task = choose(state, start)
    container_names.check(state, [task], start.container)
    place = f"{containers.identity(task.meta.id, start.container)} on node {lookup.node_name(state, task.node_id)}"
    ask = wire.OpenStream(exec=wire.TaskExecRequest(task_id=task.meta.id, start=start))
    link = await task_streams.open_stream(streams, task.node_id, ask, place)
    caller.begins()
    try:
        await task_streams.both_ways(link, _feed(link, requests), _pass_output(link, place, send))
    finally:
        await link.close("the command has ended, or its caller has gone")


def choose(state: snapshots.Snapshot, start: pb.ExecStart) -> objects_pb2.Task:
    """The task of that name, or a running one of the service of that name: ready ones first, then the newest."""
    namespace = start.namespace or lookup.DEFAULT_NAMESPACE
    of_service = state.tasks_of(namespace, start.target)
    if not of_service and state.get(objects_pb2.Service, start.target, namespace=namespace) is None:
        task = lookup.task(state, namespace, start.target)
        if not _may_run(task, start.container):
            raise errors.NotNow(f"{kinds.label(task)} does not run: it is {states.word(task.status.state)}")
        return task
    running = [task for task in of_service.values() if _may_run(task, start.container)]
    best = [task for task in running if task_rules.is_ready(task)] or running
    chosen = task_rules.newest(best)
    if chosen is None:
        hint = f"`orchctl describe service {start.target}` says why"
        raise errors.NotNow(f"no task of Service {namespace}/{start.target} runs", hint=hint)
    return chosen


def _may_run(task: objects_pb2.Task, container: str) -> bool:
    """Whether the container can be there: those before and beside the main one are there before it."""
    return task.status.state in ({states.STARTING, states.RUNNING} if container else {states.RUNNING})


async def _first(requests: AsyncIterator[pb.ExecRequest]) -> pb.ExecStart:
    first = await task_streams.first(requests, "an exec", "what to run")
    if first is None or first.WhichOneof("message") != "start":
        raise errors.Invalid("the first message of an exec has to say what to run, and where")
    if not first.start.target or not first.start.command:
        raise errors.Invalid("an exec needs a task or service, and a command")
    return first.start


async def _feed(link: ports.AgentLink, requests: AsyncIterator[pb.ExecRequest]) -> None:
    """What the caller sends, to the agent. That the agent is lost is noticed, and told, where output is awaited."""
    with contextlib.suppress(LinkLost):
        async for request in requests:
            if request.WhichOneof("message") == "start":
                raise errors.Invalid("an exec says what to run in its first message only")
            await link.send(wire.StreamFrame(input=request))
        await link.send(wire.StreamFrame(input=pb.ExecRequest(stdin_closed=True)))


async def _pass_output(link: ports.AgentLink, place: str, send: Send) -> None:
    """What the agent sends, to the caller, until the exit code."""
    while True:
        try:
            frame = await link.receive()
        except LinkLost as error:
            hint = "the command may still run; `orchctl node ls` shows whether the node is there"
            raise errors.NotReachable(f"{place} was lost before the command ended: {error}", hint=hint) from error
        match frame.WhichOneof("frame"):
            case "output":
                await send(frame.output)
                if frame.output.WhichOneof("message") == "exit_code":
                    return
            case "error":
                raise errors.NotNow(f"{place}: {frame.error.message}", hint=frame.error.hint)
            case other:
                raise errors.NotReachable(f"{place}: the agent sent {other} instead of output")
