"""Usage: asks nodes for what they have counted.

The rule: nobody is asked unless somebody wants to know; and a node that cannot be asked keeps nobody from hearing of
the others.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.api import asking, ports
from controlplane.core import lookup
from controlplane.core import usage as core
from controlplane.store import snapshots
from protos import traffic
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

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
        owners = traffic.owners(self.network.services()) if request.services else {}
        tasks = {task.meta.id: task for task in self.state.all(objects_pb2.Task).values()} if request.tasks else {}
        question = wire.OpenStream(usage=wire.NodeUsageRequest(services=request.services, tasks=request.tasks))

        async def ask(node: objects_pb2.Node) -> pb.NodeUsage:
            counters = await asking.ask(self.streams, node, question, _counters, NODE_TIMEOUT_S)
            if isinstance(counters, str):
                return core.unknown(node, counters)
            return core.named(counters, node, owners, tasks)

        await asking.each(chosen, ask, tell)


async def _counters(link: ports.AgentLink) -> wire.NodeCounters:
    frame = await link.receive()
    match frame.WhichOneof("frame"):
        case "counters":
            return frame.counters
        case "error":
            raise LinkLost(frame.error.message)
        case other:
            raise LinkLost(f"the agent sent {other} instead of counters")
