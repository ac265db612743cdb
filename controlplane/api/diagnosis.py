"""The cluster's doctor: asks etcd, the other instances and every node, and passes on what is to be said of each.

Two rules. Whoever cannot be asked is a finding, and keeps nobody from hearing of the others. And nothing is changed by
it: nodes send each other packets, and that is all.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc.aio

from controlplane.api import asking, caller, ports
from controlplane.api.network_check import Check
from controlplane.core import diagnosis as core
from controlplane.store import errors as store_errors
from controlplane.store import snapshots
from controlplane.store.condition import Member
from protos import findings
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, objects_pb2, trust_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from trust.core import certificate
from trust.core.identity import Role

NODE_TIMEOUT_S = 60.0
INSTANCE_TIMEOUT_S = 3.0
MACHINE_TIMEOUT_S = 10.0

_LEADERLESS = findings.failed(
    "leader",
    "nobody leads: nothing is scheduled and nothing can be changed; what runs goes on",
    "see what is said of etcd and of the instances above",
)

Send = Callable[[pb.DiagnoseResponse], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What an instance can ask beside its nodes. Each is empty or None where there is none, as in tests."""

    condition: Callable[[], Awaitable[Sequence[Member]]] | None = None
    instances: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """The addresses of the other instances."""
    dial: Callable[[str, Role], grpc.aio.Channel] | None = None
    trust: Callable[[], trust_pb2.TrustRecord] | None = None
    members: Callable[[], Sequence[trust_pb2.MemberRecord]] | None = None
    machine: Callable[[], Awaitable[Sequence[pb.Finding]]] | None = None
    """What the instance finds on its own machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One call."""

    state: snapshots.Snapshot
    streams: ports.Streams
    network: ports.NetworkView
    around: Around
    name: str
    version: str
    store_problem: str
    leads: bool
    now_ms: Callable[[], int]
    send: Send

    async def run(self, request: pb.DiagnoseRequest) -> None:
        """Sends findings as they are made."""
        caller.begins()
        own = core.Instance(name=self.name, version=self.version, store_problem=self.store_problem)
        await self._tell(core.instance(own, self.version))
        if self.around.machine is not None:
            await self._tell(findings.at(self.name, await self.around.machine()))
        if self.around.condition is not None:
            await self._tell(core.etcd(await self.around.condition()))
        await self._certificates()
        await self._instances()
        await self._known_nodes()
        if not self.leads:
            await self._tell([_LEADERLESS])
            return
        await self._machines()
        if not request.without_network:
            await self._network()

    async def _certificates(self) -> None:
        if self.around.trust is None or self.around.members is None:
            return
        trust = self.around.trust()
        roots = [certificate.read(one.certificate.encode()) for one in trust.roots]
        until = {one.key_digest[:8]: one.not_after_ms for one in roots}
        await self._tell(core.certificates(self.around.members(), until, self.now_ms()))
        if trust.HasField("store_root"):
            of_store = certificate.read(trust.store_root.certificate.encode())
            await self._tell([core.store_root(of_store.not_after_ms, self.now_ms())])
        await self._tell(core.exchange(trust, self.around.members(), self.now_ms()))

    async def _instances(self) -> None:
        if self.around.instances is None:
            return
        try:
            others = await self.around.instances()
        except store_errors.Temporary as error:
            text = f"the others are not known now: {error}"
            await self._tell([findings.failed("instances", text, "see what is said of etcd above")])
            return
        for name, address in others.items():
            await self._instance(name, address)

    async def _instance(self, name: str, address: str) -> None:
        assert self.around.dial is not None, "who knows of others can dial them"
        async with self.around.dial(address, Role.CONTROLPLANE) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            asked = await self._asked(name, stub)
            await self._tell(core.instance(asked, self.version))
            if not asked.problem:
                await self._tell(findings.at(name, await _machine(stub)))

    async def _asked(self, name: str, stub: "control_pb2_grpc.ControlAsyncStub") -> core.Instance:
        before = self._sent()
        try:
            said = await stub.Version(pb.VersionRequest(), timeout=INSTANCE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return core.Instance(name=name, problem=error.details() or error.code().name)
        # An older instance does not tell its clock.
        ahead_ms, uncertain_ms = self._ahead(said.now, before) if said.now else (0, 0)
        return core.Instance(
            name=name,
            version=said.version,
            store_problem=said.store_problem,
            ahead_ms=ahead_ms,
            uncertain_ms=uncertain_ms,
        )

    async def _known_nodes(self) -> None:
        nodes = self.state.all(objects_pb2.Node).values()
        for one in sorted(nodes, key=lambda node: node.meta.name):
            await self._tell(core.node(one, self.version))

    async def _machines(self) -> None:
        """What each node finds on its own machine."""
        nodes = list(self.state.all(objects_pb2.Node).values())
        question = wire.OpenStream(diagnosis=wire.NodeDiagnosisRequest())

        async def ask(node: objects_pb2.Node) -> list[pb.Finding]:
            before = self._sent()
            found = await asking.ask(
                self.streams, node, question, lambda link: self._heard(link, before), NODE_TIMEOUT_S
            )
            if isinstance(found, str):
                remedy = "see its agent's log; `orchctl node doctor` on the machine itself tells more"
                found = [findings.warning("machine", f"it does not tell of itself: {found}", remedy)]
            return findings.at(node.meta.name, found)

        await asking.each((one for one in nodes if one.status.state == objects_pb2.NODE_STATE_READY), ask, self._tell)

    async def _heard(self, link: ports.AgentLink, before: tuple[int, float]) -> list[pb.Finding]:
        found: list[pb.Finding] = []
        while True:
            frame = await link.receive()
            match frame.WhichOneof("frame"):
                case "diagnosis" if frame.diagnosis.now:
                    found.append(core.clock("the leader's", *self._ahead(frame.diagnosis.now, before)))
                case "diagnosis":
                    # Whether it is kept right says less than how right it is.
                    found += [one for one in frame.diagnosis.findings if one.check != "clock"]
                case "end":
                    return found
                case "error":
                    raise LinkLost(frame.error.message)
                case other:
                    raise LinkLost(f"the agent sent {other} instead of findings")

    async def _network(self) -> None:
        async def send(response: pb.CheckNetworkResponse) -> None:
            await self._tell(core.network(one for one in response.findings if one.source))

        check = Check(state=self.state, streams=self.streams, network=self.network, send=send)
        await check.run(pb.CheckNetworkRequest())

    async def _tell(self, found: Sequence[pb.Finding]) -> None:
        if found:
            await self.send(pb.DiagnoseResponse(findings=found))

    def _sent(self) -> tuple[int, float]:
        """When a question goes out, by the clock and by one that nobody sets."""
        return self.now_ms(), time.monotonic()

    def _ahead(self, theirs_ms: int, sent: tuple[int, float]) -> tuple[int, int]:
        """How far a clock is ahead of ours, and how uncertain that is: it was read at some moment on the way.

        Sent at 1000, 40 ms there and back, and they say 1030: 10 ms ahead of the middle, give or take 20.
        """
        took_ms = int((time.monotonic() - sent[1]) * 1000)
        return theirs_ms - (sent[0] + took_ms // 2), took_ms // 2 + 1


async def _machine(stub: "control_pb2_grpc.ControlAsyncStub") -> Sequence[pb.Finding]:
    """What an instance finds on its own machine. An older one cannot tell; that it is older has a line of its own."""
    try:
        return (await stub.Examine(pb.ExamineRequest(), timeout=MACHINE_TIMEOUT_S)).findings
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return ()
        return [findings.warning("machine", f"it does not tell of itself: {error.details()}", "see its log")]
