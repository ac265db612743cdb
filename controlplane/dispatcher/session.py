"""One agent's session: what it must run goes down, what it reports comes up.

Assignments are computed when they can be sent, from the newest snapshot: an agent that reads slowly gets fewer and
larger ones, and never a queue of old ones. What says nothing but where other tasks are waits a moment for more of its
kind, when something was sent a moment ago: 5,000 such changes a minute, to each of 100 nodes, are few messages then.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from controlplane.core import assignments, happenings, nodes
from controlplane.core.endpoint_table import Table
from controlplane.dispatcher.blobs import BlobBook
from controlplane.dispatcher.peers import Peers
from controlplane.dispatcher.withdrawals import Withdrawals
from controlplane.store.snapshots import Snapshot
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

HEARTBEAT_MS = 5_000
SILENCE_S = 15.0
"""A link that is up but brings nothing for this long belongs to an agent whose own loop hangs."""

MAX_OUTBOX = 1_024
MAX_UNCONFIRMED = 1_024
"""Assignments of which it is remembered what list of services came with them."""
GATHER_S = 0.05

AgentLink = Link[wire.LeaderMessage, wire.AgentMessage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading:
    """What a leadership lends to the sessions. `network`: what is the same for all nodes."""

    on_report: Callable[["Session", wire.StatusReport], None]
    network: wire.NodeNetwork
    holds: Callable[[], bool]
    """Whether nobody else can lead at this moment, however long this process has slept."""
    table: Table
    withdrawals: Withdrawals
    blobs: BlobBook
    peers: Peers


class Session:
    """Serves one registered agent. `info` is what it said of itself."""

    def __init__(
        self, link: AgentLink, info: nodes.Session, *, snapshot: Callable[[], Snapshot], leading: Leading
    ) -> None:
        self.info = info
        self.applied = 0
        self.back_within_ms = 0
        self._link = link
        self._snapshot = snapshot
        self._leading = leading
        self._unconfirmed: deque[tuple[int, int]] = deque(maxlen=MAX_UNCONFIRMED)
        """Numbers of assignments, and of the lists of services that came with them or before."""
        self._sent_at = 0.0
        self._work = assignments.Work()
        self._work_of: tuple[object, ...] = ()
        self._outbox: deque[wire.LeaderMessage] = deque()
        self._woken = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reported = 0
        self._told_at_heartbeat = 0
        self._told: assignments.Told | None = None
        self._sequence = 0

    def wake(self) -> None:
        """Something in the node's assignment may have changed."""
        self._woken.set()

    def open_stream(self, request: wire.OpenStream) -> None:
        """Asks the agent to open a stream. Raises `asyncio.QueueFull` when it is not listening."""
        if len(self._outbox) >= MAX_OUTBOX:
            raise asyncio.QueueFull
        self._send_soon(wire.LeaderMessage(open_stream=request))

    def tell(self, message: wire.LeaderMessage) -> None:
        """Sends the agent a message that is about no task."""
        self._send_soon(message)

    def acknowledge(self, sequence: int) -> None:
        """Tells the agent that its report is stored. An agent sends no more than a few before it hears this."""
        self._send_soon(wire.LeaderMessage(acknowledged=wire.StatusAcknowledged(sequence=sequence)))

    def end(self, why: str) -> None:
        """Ends the session soon."""
        if not self._ended.done():
            self._ended.set_result(why)

    async def serve(self) -> None:
        """Runs until the link is lost or the session is ended."""
        try:
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(self._receive()), group.create_task(self._send())]
                why = await self._ended
                for task in work:
                    task.cancel()
        finally:
            await self._link.close(self._ended.result() if self._ended.done() else "the leader stops")
        log.info("session ended", node=self.info.node_name, why=why)

    async def _receive(self) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await self._link.receive()
                self._take(message)
        except TimeoutError:
            self.end(f"nothing was heard for {SILENCE_S:g} s")
        except LinkLost as lost:
            self.end(str(lost))

    def _take(self, message: wire.AgentMessage) -> None:
        match message.WhichOneof("message"):
            case "statuses" if message.statuses.sequence <= self._reported:
                self.acknowledge(message.statuses.sequence)  # it was overtaken, or comes again
            case "statuses":
                self._reported = message.statuses.sequence
                self._leading.on_report(self, message.statuses)
            case "resync":
                log.warning(
                    "agent asks for everything", node=self.info.node_name, why=happenings.cut(message.resync.why)
                )
                self._told = None
                self.wake()
            case "heartbeat":
                self._hear(message.heartbeat)
                self._compare(message.heartbeat.sequence)
            case "network_applied":
                self._confirm(message.network_applied.sequence)
            case "blobs_held":
                self._leading.blobs.note(self.info.node_id, message.blobs_held)
            case "leaving":
                self.back_within_ms = message.leaving.back_within
                self.end("the agent has gone in order")
            case "register":
                pass  # a second registration changes nothing
            case None:
                self.end("the agent sent an empty message")

    def _hear(self, heartbeat: wire.Heartbeat) -> None:
        """Fenced tasks live by the answer, so it is given only by who certainly leads."""
        if heartbeat.number and self._leading.holds():
            self._send_soon(wire.LeaderMessage(heard=wire.HeartbeatHeard(number=heartbeat.number)))

    def _compare(self, sequence: int) -> None:
        """Tells everything again when the agent has missed what it was told at least one heartbeat ago."""
        told = self._told.sequence if self._told is not None else 0
        if sequence < told == self._told_at_heartbeat:
            log.warning("agent has missed an assignment", node=self.info.node_name, at=sequence, told=told)
            self._told = None
            self.wake()
        self._told_at_heartbeat = told

    def _confirm(self, sequence: int) -> None:
        """The node's network is as the assignment of this number says."""
        while self._unconfirmed and self._unconfirmed[0][0] <= sequence:
            _, self.applied = self._unconfirmed.popleft()
        self._leading.withdrawals.wake()

    async def _send(self) -> None:
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while self._outbox:
                    await self._link.send(self._outbox.popleft())
                message = self._next_assignment()
                if message is not None:
                    await self._link.send(message)
        except LinkLost as lost:
            self.end(str(lost))

    def _next_assignment(self) -> wire.LeaderMessage | None:
        """What the agent has to be told now. Nothing before its node's record is stored."""
        snapshot = self._snapshot()
        node = snapshot.get(pb.Node, self.info.node_id)
        if node is None or node.status.state != pb.NODE_STATE_READY:
            return None
        work = self._present_work(snapshot, node)
        withdrawn = self._leading.withdrawals.of(self.info.node_id)
        told = self._told
        services = self._leading.table.since(told.services) if told is not None else None
        if told is None or services is None:
            message, after = assignments.complete(work, self._leading.table.everything(), withdrawn, self._sequence + 1)
        else:
            only_services = work is told.work and withdrawn == told.withdrawn
            if only_services and (services.number == told.services or self._gathers()):
                return None
            changed, after = assignments.incremental(told, work, services, withdrawn)
            if changed is None:
                return None
            message = changed
        self._note(after)
        return wire.LeaderMessage(assignment=message)

    def _note(self, told: assignments.Told) -> None:
        self._told = told
        self._sequence = told.sequence
        self._unconfirmed.append((told.sequence, told.services))
        self._sent_at = asyncio.get_running_loop().time()

    def _gathers(self) -> bool:
        """Whether what may have changed waits for more; then there is a wake when the time has come."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._sent_at + GATHER_S:
            return False
        loop.call_at(self._sent_at + GATHER_S, self.wake)
        return True

    def _present_work(self, snapshot: Snapshot, node: pb.Node) -> assignments.Work:
        """The same value as the last time, when nothing that it is made of has changed."""
        tasks = snapshot.tasks_on(self.info.node_id)
        peers = self._leading.peers.of(snapshot.all(pb.Node))
        settings = self._leading.peers.settings
        sources = (tasks, node, peers, settings, snapshot.all(pb.Revision))
        if len(self._work_of) != len(sources) or any(a is not b for a, b in zip(sources, self._work_of, strict=True)):
            revisions = {
                revision.meta.id: revision
                for namespace, service in {(task.meta.namespace, task.service) for task in tasks.values()}
                for revision in snapshot.revisions_of(namespace, service).values()
            }
            network = assignments.network_of(node, peers, settings)
            self._work = assignments.Work(
                tasks=tuple(tasks.values()), revisions=revisions, network=network, labels=dict(node.meta.labels)
            )
            self._work_of = sources
        return self._work

    def _send_soon(self, message: wire.LeaderMessage) -> None:
        if len(self._outbox) >= 4 * MAX_OUTBOX:
            self.end("the agent does not read what it is sent")
        self._outbox.append(message)
        self._woken.set()
