"""The leader's side of everything that agents open: sessions and streams.

A dispatcher belongs to an instance and outlives its leaderships. While the instance does not lead, an agent that calls
is told who does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from controlplane.core import assignments, locality, nodes, said
from controlplane.core.endpoint_table import Table
from controlplane.core.trust.believed import Believed
from controlplane.dispatcher.blobs import BlobBook, Place
from controlplane.dispatcher.peers import Peers
from controlplane.dispatcher.session import HEARTBEAT_MS, AgentLink, Leading, Session
from controlplane.dispatcher.sessions import Sessions
from controlplane.dispatcher.streams import StreamBroker
from controlplane.dispatcher.withdrawals import Withdrawals
from controlplane.store.snapshots import Change, Snapshot
from protos.link import LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

REGISTER_TIMEOUT_S = 10.0
MAX_SHOWN = 100
LEADER_TIMEOUT_S = 4.5
"""How long an agent that comes while nobody leads is kept, rather than told so: longer than an election after a leader
was lost takes, and shorter than agents wait for an answer, which is 5 s.
"""


class Dispatcher:
    """Serves agents. `leader`: the name and address of who leads, empty while nobody does; `until_led` waits until
    another instance leads, at another address than that, for so many seconds at most.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        leader: Callable[[], tuple[str, str]],
        new_id: Callable[[], str],
        until_led: Callable[[str, float], Awaitable[None]] | None = None,
    ) -> None:
        self.sessions = Sessions()
        self.streams = StreamBroker(self.sessions, new_id)
        self._snapshot = snapshot
        self._leader = leader
        self._new_id = new_id
        self._until_led = until_led
        self._leading: Leading | None = None
        self._leads = asyncio.Event()
        self._believed = Believed()

    def believe(self, believed: Believed) -> None:
        """Others are members of the cluster now: nodes are told, so that they give nothing to those who are none."""
        if believed == self._believed:
            return
        self._believed = believed
        if self._leading is not None:
            self._leading.peers.believe(believed)
            self.sessions.wake_all()

    def lead(
        self,
        on_report: Callable[[Session, wire.StatusReport], None],
        network: wire.NodeNetwork,
        holds: Callable[[], bool],
    ) -> None:
        """Agents that call from now on are served. Run `work` meanwhile.

        `network`: what is the same for all nodes; `holds`: whether nobody else can lead at this moment.
        """
        table = Table()
        withdrawals = Withdrawals(table, self.sessions, self._snapshot)
        self._leading = Leading(
            on_report=on_report,
            network=network,
            holds=holds,
            table=table,
            withdrawals=withdrawals,
            blobs=BlobBook(self._place_of),
            peers=Peers(network, self._believed),
        )
        self.sessions.begin()
        self._leads.set()
        self.notice_everything()

    async def work(self) -> None:
        """Runs until cancelled, while this instance leads."""
        assert self._leading is not None, "only a leader has work"
        await self._leading.withdrawals.run()

    def settings(self) -> wire.NodeNetwork:
        """What is the same in the network of all nodes. Nothing while this instance does not lead."""
        return self._leading.network if self._leading is not None else wire.NodeNetwork()

    def services(self) -> Sequence[wire.NetworkService]:
        """The services as nodes are told of them. None while this instance does not lead."""
        return self._leading.table.everything().changed if self._leading is not None else ()

    async def find_blob(
        self, request: wire.FindBlobRequest, *, here: Callable[[], bool], size_bytes: int = 0
    ) -> wire.FindBlobResponse:
        """Who gives a blob to a node. `here`: whether this instance has it; `size_bytes`: 0 when it is not known."""
        if self._leading is None:
            return wire.FindBlobResponse(here=here())
        return await self._leading.blobs.find(request, here=here, size_bytes=size_bytes)

    def blob_addresses(self, digest: str) -> Sequence[str]:
        """Where nodes serve a blob, as far as it is known here: none while this instance does not lead."""
        return self._leading.blobs.addresses(digest) if self._leading is not None else ()

    def holders(self) -> locality.Holders:
        """Which nodes have which blobs. Nobody, as far as it is known here, while this instance does not lead."""
        return self._leading.blobs.holders if self._leading is not None else locality.Holders()

    def _place_of(self, node_id: str) -> Place | None:
        session = self.sessions.get(node_id)
        if session is None:
            return None
        said = session.info.description
        node = self._snapshot().get(pb.Node, node_id)
        zone = node.meta.labels.get("zone", "") if node is not None else ""
        return Place(address=_host_port(said.address, said.blob_port) if said.blob_port else "", zone=zone)

    def follow(self, why: str) -> None:
        """Agents have to go to another leader."""
        self._leading = None
        self._leads.clear()
        self.sessions.end_all(why)

    def notice_everything(self) -> None:
        """Changes were missed, or it is the beginning."""
        if self._leading is not None:
            snapshot = self._snapshot()
            self._leading.table.rebuild(snapshot)
            self._leading.withdrawals.rebuild(snapshot)
            self.sessions.wake_all()

    def notice(self, changes: Sequence[Change]) -> None:
        """Wakes the sessions whose node's assignment a change may concern."""
        if self._leading is None:
            return
        new_list = self._leading.table.update(changes, self._snapshot())
        self._leading.withdrawals.notice(changes)
        # Every node knows the address of every other, and all services.
        if new_list or any(map(_concerns_all, changes)):
            self.sessions.wake_all()
        for change in changes:
            for value in (change.before, change.after):
                if isinstance(value, pb.Task):
                    self._wake(value.node_id)
                elif isinstance(value, pb.Node):
                    self._wake(value.meta.id)

    def _wake(self, node_id: str) -> None:
        session = self.sessions.get(node_id)
        if session is not None:
            session.wake()

    async def serve(self, link: AgentLink, proven: str | None = None, joined_as: str = "") -> None:
        """Serves one agent's link until it ends. `proven`: the node that its certificate is of, where there are any;
        `joined_as`: what that node was called when it joined, if it is known.
        """
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
        if proven not in {None, first.register.node_id}:
            await link.close(
                f"the certificate is of the node {proven}, and the agent says that it is "
                f"{first.register.node_id:.{MAX_SHOWN}}; give it the --trust and the --state that were made together"
            )
            return
        await self._serve_registered(link, first.register, joined_as)

    async def _serve_registered(self, link: AgentLink, register: wire.Register, joined_as: str) -> None:
        if self._leading is None:
            await self._until_somebody_leads(register.lost_leader)
        leading = self._leading
        if leading is None:
            await self._redirect(link)
            return
        refusal = said.refusal(register, joined_as) or self._refusal(register)
        if refusal:
            log.warning("agent refused", node=register.node_id[:MAX_SHOWN], why=refusal)
            await link.close(refusal)
            return
        info = nodes.Session(
            session_id=self._new_id(),
            node_id=register.node_id,
            node_name=register.node_name,
            description=register.description,
            labels=dict(register.labels),
        )
        session = Session(link, info, snapshot=self._snapshot, leading=leading)
        await self._run(link, session, leading)

    async def _run(self, link: AgentLink, session: Session, leading: Leading) -> None:
        registered = wire.Registered(session_id=session.info.session_id, heartbeat_interval=HEARTBEAT_MS)
        try:
            await link.send(wire.LeaderMessage(registered=registered))
        except LinkLost:
            return
        log.info("session begins", node=session.info.node_name, address=session.info.description.address)
        leading.blobs.forget(session.info.node_id)  # what an older session has told
        self.sessions.add(session)
        session.wake()
        try:
            await session.serve()
        finally:
            if self.sessions.get(session.info.node_id) is session:
                leading.blobs.forget(session.info.node_id)
            self.sessions.remove(session)

    async def _until_somebody_leads(self, lost: str) -> None:
        """This instance, or another than the leader that the agent has lost; for a while at most.

        A thousand agents that are told to ask again would do nothing else until somebody leads.
        """
        name, address = self._leader()
        if self._until_led is None or (name and address != lost):
            return
        others, here = self._until_led(lost, LEADER_TIMEOUT_S), self._leads.wait()
        waiting = [asyncio.ensure_future(one) for one in (others, here)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    async def _redirect(self, link: AgentLink) -> None:
        """To the leader. One that the agent has lost is named only when no other came for a while."""
        name, address = self._leader()
        why = f"{name} leads" if name else "nobody leads at the moment"
        try:
            await link.send(wire.LeaderMessage(redirect=wire.Redirect(leader_address=address, why=why)))
        except LinkLost:
            return
        await link.close(why)

    def _refusal(self, register: wire.Register) -> str:
        """Why this agent cannot join; empty when it can."""
        for node in self._snapshot().all(pb.Node).values():
            if node.meta.name == register.node_name and node.meta.id != register.node_id:
                return (
                    f"the name {register.node_name} belongs to another node ({node.meta.id}); start the agent with "
                    f"another --name, or remove the old node with `orchctl delete node {register.node_name}`"
                )
        return ""


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _concerns_all(change: Change) -> bool:
    """Whether other nodes are told of it; how far a drain has come is the node's own affair."""
    before, after = (one if isinstance(one, pb.Node) else None for one in (change.before, change.after))
    return assignments.seen_by_others(before) != assignments.seen_by_others(after)
