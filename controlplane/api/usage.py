"""Usage: asks nodes for what they have counted.

The rule: nobody is asked unless somebody wants to know; and a node that cannot be asked keeps nobody from hearing of
the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from controlplane.api import ports
from controlplane.core import lookup
from controlplane.core import usage as core
from controlplane.dispatcher.streams import NodeUnreachable
from controlplane.store import snapshots
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

AT_ONCE = 64
NODE_TIMEOUT_S = 10.0

Tell = Callable[[pb.NodeUsage], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the leader needs to ask."""

    state: snapshots.Snapshot
    streams: ports.Streams
    network: ports.NetworkView

    async def read(self, request: pb.UsageRequest, tell: Tell) -> None:
        """Tells what each node has counted, one by one as they answer. Raises Unknown for a node that there is not."""
        known = list(self.state.all(objects_pb2.Node).values())
        chosen = [lookup.node(self.state, name) for name in request.nodes] or known
        owners = core.owners(self.network.services()) if request.services else {}
        tasks = {task.meta.id: task for task in self._tasks(request)}
        limit, telling = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

        async def one(node: objects_pb2.Node) -> None:
            async with limit:
                counters = await self._ask(node, wire.NodeUsageRequest(services=request.services, tasks=request.tasks))
            if isinstance(counters, str):
                usage = core.unknown(node, counters)
            else:
                usage = core.named(counters, node, owners, tasks)
            async with telling:
                await tell(usage)

        async with asyncio.TaskGroup() as group:
            for node in chosen:
                group.create_task(one(node))

    def _tasks(self, request: pb.UsageRequest) -> Sequence[objects_pb2.Task]:
        return list(self.state.all(objects_pb2.Task).values()) if request.tasks else []

    async def _ask(self, node: objects_pb2.Node, request: wire.NodeUsageRequest) -> wire.NodeCounters | str:
        """What it has counted, or why that is not known."""
        try:
            async with asyncio.timeout(NODE_TIMEOUT_S):
                return await self._counters(node.meta.id, request)
        except TimeoutError:
            return f"it did not answer within {NODE_TIMEOUT_S:g} s"
        except (NodeUnreachable, LinkLost) as error:
            return str(error)

    async def _counters(self, node_id: str, request: wire.NodeUsageRequest) -> wire.NodeCounters:
        link = await self.streams.open(node_id, wire.OpenStream(usage=request))
        try:
            frame = await link.receive()
            match frame.WhichOneof("frame"):
                case "counters":
                    return frame.counters
                case "error":
                    raise LinkLost(frame.error.message)
                case other:
                    raise LinkLost(f"the agent sent {other} instead of counters")
        finally:
            await link.close("the counters were read")
