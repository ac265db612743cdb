"""Network check: asks every node to try the ways to the others, and passes on what they find.

The rule: a node that cannot be asked is a finding, too; it keeps nobody from hearing of the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from controlplane.api import ports
from controlplane.core import lookup
from controlplane.core import network_check as core
from controlplane.dispatcher.streams import NodeUnreachable
from controlplane.store import snapshots
from manifests import defaults
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

AT_ONCE = 64
NODE_TIMEOUT_S = 60.0
"""For everything that one node tries."""

Send = Callable[[pb.CheckNetworkResponse], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One call."""

    state: snapshots.Snapshot
    streams: ports.Streams
    network: ports.NetworkView
    send: Send

    async def run(self, request: pb.CheckNetworkRequest) -> None:
        """Sends a response for each node. Raises Unknown for a node that there is not."""
        asked = defaults.resolve(request)
        known = list(self.state.all(objects_pb2.Node).values())
        chosen = [lookup.node(self.state, name) for name in asked.nodes] or known
        if findings := core.absent(chosen if asked.nodes else known):
            await self.send(pb.CheckNetworkResponse(findings=findings))
        limit, sending = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

        async def one(node: objects_pb2.Node) -> None:
            async with limit:
                findings = await self._ask(node, known, asked.timeout)
            async with sending:
                await self.send(pb.CheckNetworkResponse(findings=findings))

        async with asyncio.TaskGroup() as group:
            for node in chosen:
                if node.status.state == objects_pb2.NODE_STATE_READY:
                    group.create_task(one(node))

    async def _ask(
        self, node: objects_pb2.Node, known: Sequence[objects_pb2.Node], timeout_ms: int
    ) -> list[pb.NetworkFinding]:
        names = {one.meta.id: one.meta.name for one in known}
        request = core.request_for(node, known, self.network.services(), self.network.settings(), timeout_ms=timeout_ms)
        try:
            async with asyncio.timeout(NODE_TIMEOUT_S):
                return core.with_names(await self._findings(node.meta.id, request), node, names)
        except TimeoutError:
            why = f"it did not finish within {NODE_TIMEOUT_S:g} s"
        except (NodeUnreachable, LinkLost) as error:
            why = str(error)
        name = node.meta.name
        return [pb.NetworkFinding(source=name, target=name, what="its agent", problem=why)]

    async def _findings(self, node_id: str, request: wire.NetworkCheckRequest) -> list[pb.NetworkFinding]:
        link = await self.streams.open(node_id, wire.OpenStream(network_check=request))
        found: list[pb.NetworkFinding] = []
        try:
            while True:
                frame = await link.receive()
                match frame.WhichOneof("frame"):
                    case "findings":
                        found += frame.findings.findings
                    case "end":
                        return found
                    case "error":
                        raise LinkLost(frame.error.message)
                    case other:
                        raise LinkLost(f"the agent sent {other} instead of findings")
        finally:
            await link.close("the check has ended")
