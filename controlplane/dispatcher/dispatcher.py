"""The leader's side of everything that agents open: sessions and streams.

A dispatcher belongs to an instance and outlives its leaderships. While the instance does not lead, an agent that calls
is told who does.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from controlplane.core import nodes
from controlplane.dispatcher.session import HEARTBEAT_MS, AgentLink, Session
from controlplane.dispatcher.sessions import Sessions
from controlplane.dispatcher.streams import StreamBroker
from controlplane.store.snapshots import Change, Snapshot
from protos.link import LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

REGISTER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading:
    """What a leadership lends to the sessions."""

    on_report: Callable[[Session, wire.StatusReport], None]
    cluster_range: str


class Dispatcher:
    """Serves agents. `leader`: the name and address of who leads, empty while nobody does."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        leader: Callable[[], tuple[str, str]],
        new_id: Callable[[], str],
    ) -> None:
        self.sessions = Sessions()
        self.streams = StreamBroker(self.sessions, new_id)
        self._snapshot = snapshot
        self._leader = leader
        self._new_id = new_id
        self._leading: Leading | None = None

    def lead(self, leading: Leading) -> None:
        """Agents that call from now on are served."""
        self._leading = leading

    def follow(self, why: str) -> None:
        """Agents have to go to another leader."""
        self._leading = None
        self.sessions.end_all(why)

    def notice(self, changes: Iterable[Change]) -> None:
        """Wakes the sessions whose node's assignment a change may concern."""
        for change in changes:
            for value in (change.before, change.after):
                if isinstance(value, pb.Task):
                    self._wake(value.node_id)
                elif isinstance(value, pb.Node):
                    self.sessions.wake_all()  # every node knows the address of every other

    def _wake(self, node_id: str) -> None:
        session = self.sessions.get(node_id)
        if session is not None:
            session.wake()

    async def serve(self, link: AgentLink) -> None:
        """Serves one agent's link until it ends."""
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                first = await link.receive()
        except TimeoutError:
            await link.close(f"no registration within {REGISTER_TIMEOUT_S:g} s")
            return
        except LinkLost:
            return
        if first.WhichOneof("message") != "register":
            await link.close("the first message of a session has to be a registration")
            return
        await self._serve_registered(link, first.register)

    async def _serve_registered(self, link: AgentLink, register: wire.Register) -> None:
        leading = self._leading
        if leading is None:
            await self._redirect(link)
            return
        refusal = self._refusal(register)
        if refusal:
            log.warning("agent refused", node=register.node_name, why=refusal)
            await link.close(refusal)
            return
        info = nodes.Session(
            session_id=self._new_id(),
            node_id=register.node_id,
            node_name=register.node_name,
            description=register.description,
            labels=dict(register.labels),
        )
        session = Session(
            link,
            info,
            snapshot=self._snapshot,
            cluster_range=leading.cluster_range,
            on_report=leading.on_report,
        )
        await self._run(link, session)

    async def _run(self, link: AgentLink, session: Session) -> None:
        registered = wire.Registered(session_id=session.info.session_id, heartbeat_interval=HEARTBEAT_MS)
        try:
            await link.send(wire.LeaderMessage(registered=registered))
        except LinkLost:
            return
        log.info("session begins", node=session.info.node_name, address=session.info.description.address)
        self.sessions.add(session)
        session.wake()
        try:
            await session.serve()
        finally:
            self.sessions.remove(session)

    async def _redirect(self, link: AgentLink) -> None:
        name, address = self._leader()
        why = f"{name} leads" if name else "nobody leads at the moment"
        try:
            await link.send(wire.LeaderMessage(redirect=wire.Redirect(leader_address=address, why=why)))
        except LinkLost:
            return
        await link.close(why)

    def _refusal(self, register: wire.Register) -> str:
        """Why this agent cannot join; empty when it can."""
        if not register.node_id or not register.node_name:
            return "a registration needs the node's id and name"
        for node in self._snapshot().all(pb.Node).values():
            if node.meta.name == register.node_name and node.meta.id != register.node_id:
                return (
                    f"the name {register.node_name} belongs to another node ({node.meta.id}); start the agent with "
                    f"another --name, or remove the old node with `orchctl delete node {register.node_name}`"
                )
        return ""
