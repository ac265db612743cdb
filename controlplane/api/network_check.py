"""Network check: asks every node to try the ways to the others, and passes on what they find.

The rule: a node that cannot be asked is a finding, too; it keeps nobody from hearing of the others.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.api import asking, caller, ports
from controlplane.core import lookup
from controlplane.core import network_check as core
from controlplane.store import snapshots
from manifests import defaults
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

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
        caller.begins()
        if findings := core.absent(chosen if asked.nodes else known):
            await self.send(pb.CheckNetworkResponse(findings=findings))
        names = {one.meta.id: one.meta.name for one in known}
        services, settings = self.network.services(), self.network.settings()

        async def ask(node: objects_pb2.Node) -> list[pb.NetworkFinding]:
            question = core.request_for(node, known, services, settings, timeout_ms=asked.timeout)
            stream = wire.OpenStream(network_check=question)
            found = await asking.ask(self.streams, node, stream, _findings, NODE_TIMEOUT_S)
            if isinstance(found, str):
                name = node.meta.name
                return [pb.NetworkFinding(source=name, target=name, what="its agent", problem=found)]
            return core.with_names(found, node, names)

        async def tell(findings: list[pb.NetworkFinding]) -> None:
            await self.send(pb.CheckNetworkResponse(findings=findings))

        present = (node for node in chosen if node.status.state == objects_pb2.NODE_STATE_READY)
        await asking.each(present, ask, tell)


async def _findings(link: ports.AgentLink) -> list[pb.NetworkFinding]:
    found: list[pb.NetworkFinding] = []
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
