"""The agent's live stream to the leader, and its rebirth whenever it is lost.

Two rules: losing the session stops nothing on the node; and nothing is remembered from one session to the next but
the worker's state, which is told from the beginning each time.

    connect ─► Register ─► Registered ─► assignments down, reports and heartbeats up ─► lost ─► wait ─► next server
                      └──► Redirect: to the leader that it names, or, when nobody leads, to the next server
"""

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from agent import lease, metrics, ports
from agent.holdings import Holdings
from agent.search import Attempt, Search
from agent.servers import Servers
from agent.streams import Streams
from agent.worker import Worker
from protos import running
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()

REGISTER_TIMEOUT_S = 5.0
"""A follower that knows of no leader waits for one before it answers."""
DEFAULT_HEARTBEAT_S = 5.0
REPORT_INTERVAL_S = 0.02
MAX_STREAMS = 128
LEAVE_TIMEOUT_S = 2.0
"""How long a leader may take to hear that the agent goes. What it has not heard by then costs tasks, not time."""


class _Redirected(Exception):  # noqa: N818 - not an error: the way to the leader
    def __init__(self, leader_address: str) -> None:
        super().__init__(leader_address)
        self.leader_address = leader_address


class Session:
    """`run` it beside the worker; it ends by being cancelled, and after `leave`.

    `told_roots` hears the digest of the roots that the cluster believes.
    """

    def __init__(
        self,
        *,
        connector: ports.Connector,
        worker: Worker,
        streams: Streams,
        servers: Servers,
        register: dpb.Register,
        holdings: Holdings,
        chance: random.Random,
        told_roots: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connector = connector
        self._worker = worker
        self._streams = streams
        self._servers = servers
        self._search = Search(servers, chance)
        self._register = register
        self._holdings = holdings
        self._told_roots = told_roots
        self.connected = asyncio.Event()
        self._link: Link[dpb.AgentMessage, dpb.LeaderMessage] | None = None
        self._over = asyncio.Event()
        self._leaving = False

    async def leave(self, back_within_ms: int) -> None:
        """Tell the leader that the agent ends in order and that one is back within so many milliseconds.

        Returns when the leader has ended the session, which says that it has heard, or when it has taken too long; at
        once when there is none. `run` begins no other, since with that the agent would be back.
        """
        self._leaving = True
        if self._link is None:
            return
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._link.send(dpb.AgentMessage(leaving=dpb.Leaving(back_within=back_within_ms)))
                await self._over.wait()
        except (LinkLost, TimeoutError) as error:
            log.warning("the leader may not know that this agent comes back", why=str(error) or "no answer in time")

    async def run(self) -> None:
        """Hold a session, again and again, until the agent leaves."""
        await self._worker.restored.wait()
        while not self._leaving:
            attempt = self._search.next()
            try:
                await self._hold(attempt)
            except _Redirected as redirect:
                rest_s = self._search.redirected(attempt, redirect.leader_address)
            except (LinkLost, TimeoutError) as error:
                log.info("no session", server=attempt.address, why=str(error) or "no answer in time")
                rest_s = self._search.failed(attempt)
            finally:
                self.connected.clear()
            await asyncio.sleep(rest_s)

    async def _hold(self, attempt: Attempt) -> None:
        """One session from connect to loss. Raises what ended it."""
        async with asyncio.timeout(attempt.patience_s):
            link = await self._connector.connect(attempt.address)
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                register = dpb.Register()
                register.CopyFrom(self._register)
                register.lost_leader = attempt.lost
                await link.send(dpb.AgentMessage(register=register))
                registered = _registered(await link.receive())
            self._worker.begin_session()
            self._link = link
            self._over.clear()
            self._search.held()
            self.connected.set()
            metrics.SESSIONS.inc()
            log.info("session", server=attempt.address, session=registered.session_id)
            raise await running.until_failure(
                self._report(link),
                self._acknowledge(link),
                self._beat(link, registered.heartbeat_interval / 1000 or DEFAULT_HEARTBEAT_S),
                self._obey(link, registered.session_id),
                self._tell_blobs(link),
                expected=(_Redirected, LinkLost, TimeoutError),
            )
        finally:
            self._link = None
            self._over.set()
            await link.close("the session has ended")

    async def _obey(self, link: Link[dpb.AgentMessage, dpb.LeaderMessage], session_id: str) -> None:
        """Take in what the leader says."""
        open_streams = 0

        async def serve(request: dpb.OpenStream) -> None:
            nonlocal open_streams
            try:
                await self._streams.serve(request, session_id)
            finally:
                open_streams -= 1

        async with asyncio.TaskGroup() as group:
            while True:
                message = await link.receive()
                match message.WhichOneof("message"):
                    case "assignment":
                        await self._assign(link, message.assignment)
                    case "acknowledged":
                        self._worker.outbox.acknowledge(message.acknowledged.sequence)
                    case "heard":
                        self._worker.lease.hear(message.heard.number)
                    case "open_stream" if open_streams < MAX_STREAMS:
                        open_streams += 1
                        group.create_task(serve(message.open_stream))
                    case "open_stream":
                        log.warning("too many streams are open; one was not opened", most=MAX_STREAMS)
                    case "redirect":
                        raise _Redirected(message.redirect.leader_address)
                    case _:
                        self._hear_news(message)

    def _hear_news(self, message: dpb.LeaderMessage) -> None:
        """What concerns no task."""
        match message.WhichOneof("message"):
            case "trust_news":
                self._told_roots(message.trust_news.roots_digest)
            case "control_planes":
                self._servers.learn(message.control_planes.addresses)
            case unknown:
                log.warning("a message that this agent does not know", message=unknown)

    async def _assign(self, link: Link[dpb.AgentMessage, dpb.LeaderMessage], assignment: dpb.Assignment) -> None:
        """Take it over, or ask for everything when something is missing before it."""
        gap = self._worker.assign(assignment)
        if gap is not None:
            await link.send(dpb.AgentMessage(resync=dpb.Resync(why=gap.why)))

    async def _report(self, link: Link[dpb.AgentMessage, dpb.LeaderMessage]) -> None:
        """Batches of statuses, at most one every 20 ms and one at a time."""
        while True:
            batch = await self._worker.outbox.next_batch()
            await link.send(dpb.AgentMessage(statuses=batch))
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _acknowledge(self, link: Link[dpb.AgentMessage, dpb.LeaderMessage]) -> None:
        """Tell up to which assignment the network is done. One that is overtaken by the next is not told of."""
        while True:
            sequence = await self._worker.network_applied()
            await link.send(dpb.AgentMessage(network_applied=dpb.NetworkApplied(sequence=sequence)))

    async def _tell_blobs(self, link: Link[dpb.AgentMessage, dpb.LeaderMessage]) -> None:
        """Tell which blobs other nodes may fetch here: all of them, then what changes."""
        told: frozenset[str] = frozenset()
        while True:
            news, told = await self._holdings.news(told)
            await link.send(dpb.AgentMessage(blobs_held=news))
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _beat(self, link: Link[dpb.AgentMessage, dpb.LeaderMessage], interval_s: float) -> None:
        """More often, and with numbers that are answered, while there are fenced tasks."""
        fencing = self._worker.lease
        while True:
            if fencing.wanted.is_set():
                await asyncio.sleep(min(interval_s, lease.INTERVAL_S))
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(fencing.wanted.wait(), interval_s)
            sequence = self._worker.sequence
            # Not before this session has told which tasks were given up meanwhile: those must not be started again.
            heartbeat = dpb.Heartbeat(sequence=sequence, number=fencing.ask() if sequence else 0)
            await link.send(dpb.AgentMessage(heartbeat=heartbeat))


def _registered(message: dpb.LeaderMessage) -> dpb.Registered:
    match message.WhichOneof("message"):
        case "registered":
            return message.registered
        case "redirect":
            raise _Redirected(message.redirect.leader_address)
        case other:
            raise LinkLost(f"the server answered a registration with {other}")
