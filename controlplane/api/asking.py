"""Asks nodes something, some at a time, and passes on what each says as it comes.

The rule: a node that cannot be asked has an answer, too: why not. It keeps nobody from hearing of the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from controlplane.api import ports
from controlplane.dispatcher.streams import NodeUnreachable
from protos.link import LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

AT_ONCE = 64

T = TypeVar("T")


async def each(
    nodes: Iterable[objects_pb2.Node],
    ask: Callable[[objects_pb2.Node], Awaitable[T]],
    tell: Callable[[T], Awaitable[object]],
) -> None:
    """Asks every node, and tells the answers one after the other."""
    limit, telling = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def one(node: objects_pb2.Node) -> None:
        async with limit:
            answer = await ask(node)
        async with telling:
            await tell(answer)

    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(one(node))


async def ask(
    streams: ports.Streams,
    node: objects_pb2.Node,
    question: wire.OpenStream,
    read: Callable[[ports.AgentLink], Awaitable[T]],
    timeout_s: float,
) -> T | str:
    """What `read` makes of the node's stream; or a sentence on why there is no answer."""
    try:
        async with asyncio.timeout(timeout_s):
            link = await streams.open(node.meta.id, question)
            try:
                return await read(link)
            finally:
                await link.close("nothing more is asked")
    except TimeoutError:
        return f"it did not answer within {timeout_s:g} s"
    except (NodeUnreachable, LinkLost) as error:
        return str(error)
