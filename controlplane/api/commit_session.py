"""Commit: carries what a container has changed from the agent of the task's node to the caller.

The rule: nothing is kept here. What the caller does not take yet, the agent does not send yet.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from controlplane.api import caller, ports, task_streams
from controlplane.core import container_names, lookup
from controlplane.core import request_errors as errors
from controlplane.store import snapshots
from protos import containers, kinds
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

Send = Callable[[pb.CommitResponse], Awaitable[object]]


async def serve(
    state: snapshots.Snapshot, streams: ports.Streams, requests: AsyncIterator[pb.CommitRequest], send: Send
) -> None:
    """Sends the offer, then the blobs that the caller wishes. Raises Invalid, Unknown, NotNow or NotReachable."""
    start = await _first(requests)
    namespace = start.namespace or lookup.DEFAULT_NAMESPACE
    task = lookup.find(state, pb.ObjectReference(kind="task", namespace=namespace, name=start.task))
    assert isinstance(task, objects_pb2.Task), "a task was asked for"
    container_names.check(state, [task], start.container)
    if not task.node_id:
        raise errors.NotNow(f"{kinds.label(task)} is on no node yet", hint=f"`orchctl why {task.meta.id}` says why")
    place = f"{containers.identity(task.meta.id, start.container)} on node {lookup.node_name(state, task.node_id)}"
    ask = wire.TaskCommitRequest(task_id=task.meta.id, container=start.container, running=start.running)
    link = await task_streams.open_stream(streams, task.node_id, wire.OpenStream(commit=ask), place)
    caller.begins()
    try:
        await task_streams.both_ways(link, _feed(link, requests), _pass_on(link, place, send))
    finally:
        await link.close("the image has been read, or its caller has gone")


async def _first(requests: AsyncIterator[pb.CommitRequest]) -> pb.CommitStart:
    first = await task_streams.first(requests, "a commit", "of which task")
    if first is None or first.WhichOneof("message") != "start" or not first.start.task:
        raise errors.Invalid("the first message of a commit has to say of which task")
    return first.start


async def _feed(link: ports.AgentLink, requests: AsyncIterator[pb.CommitRequest]) -> None:
    """The caller's wish, to the agent. That the agent is lost is noticed, and told, where its answer is awaited."""
    with contextlib.suppress(LinkLost):
        async for request in requests:
            if request.WhichOneof("message") != "wish":
                raise errors.Invalid("a commit says which task it is of in its first message only")
            await link.send(wire.StreamFrame(wish=request.wish))


async def _pass_on(link: ports.AgentLink, place: str, send: Send) -> None:
    """What the agent sends, to the caller, until the end."""
    while True:
        try:
            frame = await link.receive()
        except LinkLost as error:
            raise errors.NotReachable(f"{place} was lost before all had come: {error}", hint="try again") from error
        match frame.WhichOneof("frame"):
            case "commit":
                await send(frame.commit)
                if frame.commit.WhichOneof("message") == "end":
                    return
            case "error":
                raise errors.NotNow(f"{place}: {frame.error.message}", hint=frame.error.hint)
            case other:
                raise errors.NotReachable(f"{place}: the agent sent {other} instead of parts of an image")
