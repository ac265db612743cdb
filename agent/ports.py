"""The world of an agent, as the agent sees it: small protocols, each with one real adapter and one fake.

Everything here may be called again after a failure (idempotent), raises nothing but what `agent.errors` knows, and
may be cancelled at any await.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.core.container import ContainerRequest, PreparedImage
from agent.core.hostfiles import Resolving
from agent.core.isolation import DeviceNode
from agent.core.network import Attachment
from agent.core.probes import Answer, Target
from agent.core.record import Exit, Record
from protos.link import Link
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    import asyncio


class Images(Protocol):
    """The images of this node."""

    async def prepare(
        self,
        reference: str,
        digest: str,
        policy: "pb.ImagePullPolicy.ValueType" = pb.IMAGE_PULL_POLICY_MISSING,
    ) -> PreparedImage:
        """Have the image here; with a digest exactly that one. Raises Refused (`ImageMissing`, …) or Temporary."""
        ...


class Devices(Protocol):
    """The devices of this node."""

    def named_by(self, container: pb.Container) -> Mapping[str, DeviceNode]:
        """Those that the container names, by path; all when it is privileged. Raises Refused (`DeviceMissing`)."""
        ...


class Names(Protocol):
    """Who answers the names of the cluster for this node's tasks."""

    def update(
        self, network: dpb.NodeNetwork | None, services: Mapping[str, dpb.NetworkService], touched: Collection[str]
    ) -> None:
        """What the leader says now. `touched`: ids of the services that are others than at the last call."""

    async def serve(self) -> None:
        """Answer at the gateway's address, which is there by now. Raises Temporary."""

    async def resume(self) -> None:
        """Answer at the gateway's address, if an earlier agent has left it there. Comes after the first `update`."""

    def resolving(self) -> Resolving:
        """What a container must know to ask."""
        ...


class Network(Protocol):
    """The node's part of the cluster's network."""

    async def run(self) -> None:
        """Keep what the other calls have made; they return while this runs. Ends only by being cancelled."""

    async def configure(
        self,
        network: dpb.NodeNetwork,
        services: Mapping[str, dpb.NetworkService],
        attached: tuple[Attachment, ...],
    ) -> None:
        """Make the node's device, the routes to the peers and the firewall; the `attached` keep what they have."""

    async def serve(self, services: Mapping[str, dpb.NetworkService], touched: Collection[str]) -> None:
        """New connections go where these services, by id, say. `touched`: those that are others than at the last call
        that succeeded, of this or of `configure`. Raises Temporary.
        """

    async def attach(self, attachment: Attachment) -> None:
        """Make the task's network namespace with its address and ports, and with a root id the user namespace that it
        belongs to; what is there of it already is made anew. Who may reach it is settled before its first packet.
        """

    async def detach(self, attachment: Attachment) -> None:
        """Take it all away."""

    async def attached(self) -> frozenset[str]:
        """The tasks whose network namespace is there and connected."""
        ...

    def namespace_of(self, task_id: str) -> str:
        """The path by which a container joins the task's network namespace."""
        ...

    def users_of(self, task_id: str) -> str:
        """The path by which it joins the user namespace that the network belongs to, if it is not the node's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """A container that the runtime has. `exit` is None while it runs."""

    pid: int
    started_at: int  # ms
    exit: Exit | None = None
    root_id: int = 0  # the node's id of its root


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a container uses now."""

    cpu_ns: int
    memory_bytes: int
    pids: int


class Exec(Protocol):
    """A command that runs in a container."""

    async def write(self, data: bytes) -> None:
        """Input for the command. Waits while it does not read; nothing happens when it has closed its input."""

    async def close_stdin(self) -> None:
        """No more input comes."""

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal's new size."""

    async def signal(self, number: int) -> None:
        """Send the command a signal."""

    def output(self) -> AsyncIterator[tuple[cpb.LogStream.ValueType, bytes]]:
        """What it writes, until it has closed both of its outputs."""
        ...

    async def exit_code(self) -> int:
        """Its exit code, once it has ended."""
        ...

    async def close(self) -> None:
        """Let go of it: kills the command if it still runs."""


class Runtime(Protocol):
    """The containers of this node, by their ids: see `protos.containers`."""

    async def start(self, request: ContainerRequest) -> ContainerState:
        """Create and start a container on a fresh writable layer. Raises StartFailed, Refused or Temporary.

        One that has ended by the time that this returns was started all the same: the state tells its exit.
        """
        ...

    async def containers(self) -> Mapping[str, ContainerState]:
        """Everything there is: an agent that starts adopts from it."""
        ...

    async def wait(self, container_id: str) -> Exit:
        """How the container ended; waits until it has."""
        ...

    def clock_s(self) -> float:
        """The clock by which containers are killed: nobody sets it, and it goes on while the machine sleeps."""
        ...

    async def extend(self, container_id: str, until_s: float) -> None:
        """Have a container that was started with `until_s` killed then, and not before. It happens without the agent.

        Nothing happens when it has ended. Raises Temporary.
        """

    async def signal(self, container_id: str, name: str) -> None:
        """Send its first process a signal, `SIGTERM` or `15`. Nothing happens when it has ended."""

    async def delete(self, container_id: str) -> None:
        """Kill what is left of it and remove it. Its log stays."""

    async def execute(self, container_id: str, start: cpb.ExecStart) -> Exec:
        """Run a command in it. Raises StartFailed (127, 126) or NoSuchTask."""
        ...

    async def usage(self, container_ids: Collection[str]) -> Mapping[str, Usage]:
        """What each of them uses, without those that are gone."""
        ...


class Taken(Protocol):
    """What a container has changed, as it was at one moment."""

    @property
    def offer(self) -> cpb.CommitOffer:
        """The image below, and the changes as a layer."""
        ...

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes of the layer, or of one of the image. Raises Refused or Temporary."""
        ...


class Commits(Protocol):
    """Containers as parts of images."""

    def taken(self, request: dpb.TaskCommitRequest) -> AbstractAsyncContextManager[Taken]:
        """Read what a container has changed; forgotten after the block. Raises NoSuchTask, Refused or Temporary."""
        ...


class Prober(Protocol):
    """Asks containers how they are."""

    async def ask(self, target: Target, probe: pb.Probe) -> Answer:
        """The answer, within the probe's timeout. Whatever goes wrong is a bad answer, and none is an exception."""
        ...


class Logs(Protocol):
    """The output of this node's containers, kept in files."""

    def read(
        self, container_id: str, *, tail: int, since_ms: int, until: "asyncio.Future[None] | None"
    ) -> AsyncGenerator[list[cpb.LogLine], None]:
        """Lines in batches, oldest first: what is there, or with `until` whatever comes until that is done.

        A negative `tail` means all lines. Raises NoSuchTask.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an agent finds on its disk when it starts."""

    assignment: dpb.SavedAssignment
    records: Mapping[str, Record]
    last_addresses: tuple[str, ...] = ()  # that a task was given, of one or both families


class Disk(Protocol):
    """What survives the agent."""

    async def load(self) -> Memory:
        """Everything."""
        ...

    async def save_assignment(self, assignment: dpb.SavedAssignment) -> None:
        """Durable when it returns, and never half."""

    async def save_record(self, task_id: str, record: Record) -> None:
        """Survives the agent's death when it returns, and is never half."""

    async def save_last_addresses(self, addresses: Sequence[str]) -> None:
        """A task gets it. Survives the agent's death when it returns, and is never half."""

    async def make_volumes(self, task_id: str, names: Iterable[str]) -> str:
        """The folder that the task's volumes are in, by their names. Those that are there stay as they are."""
        ...

    async def remove_volumes(self, task_id: str) -> None:
        """Remove them with all that is in them. Nothing happens when there are none."""

    async def forget(self, task_id: str) -> None:
        """Remove the task's record, log and files."""


class Checks(Protocol):
    """Whoever tries the ways from this node to others."""

    async def run(self, request: dpb.NetworkCheckRequest) -> list[cpb.NetworkFinding]:
        """What works and what does not; never raises for what is broken."""
        ...


class Meter(Protocol):
    """Whoever reads what this node, its tasks and services use and carry."""

    async def read(self, request: dpb.NodeUsageRequest) -> dpb.NodeCounters:
        """What was counted until now. Raises Temporary."""
        ...


class Doctor(Protocol):
    """Whoever looks at the machine."""

    async def examine(self) -> list[cpb.Finding]:
        """A finding for everything that was looked at. Raises Temporary."""
        ...


class Connector(Protocol):
    """The way to the control plane. Raises LinkLost when there is none."""

    async def connect(self, address: str) -> Link[dpb.AgentMessage, dpb.LeaderMessage]:
        """Open a session with the server at that address. The other calls then go to the same server."""
        ...

    async def open_stream(self) -> Link[dpb.StreamFrame, dpb.StreamFrame]:
        """Open a stream to the server of the session."""
        ...


class Source(Protocol):
    """Where images come from: the control plane, and nodes. Raises Refused (`ImageMissing`) or Temporary."""

    async def resolve(self, reference: str) -> str:
        """The digest that a name stands for."""
        ...

    async def find(self, digest: str, failed: Sequence[str]) -> dpb.FindBlobResponse:
        """Who has a blob and is free. Nobody: that was waited for already, ask again. `failed`: tried in vain."""
        ...

    def fetch(self, digest: str, offset: int, address: str = "") -> AsyncIterator[bytes]:
        """A blob's bytes from an offset on, from a node; with an empty address from the control plane."""
        ...
