"""The name server of a node: UDP and TCP at an address of each family, for the tasks of this node.

Four rules: what the cluster knows is answered without waiting; what waits for somebody else is bounded, in all and for
each client, and what comes beyond that is dropped or refused; no client asks so much that others wait for answers; and
a client's mistake is the client's alone.
"""

import asyncio
import contextlib
import errno
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import structlog

from agent import early as early_start
from agent import metrics
from agent.adapters.dnsupstream import NodeServers
from agent.core.dns import respond, wire
from agent.core.dns.budget import Budget
from agent.core.dns.respond import Asker, Forward
from agent.core.dns.zone import Zone
from agent.errors import Temporary

log = structlog.get_logger()

PORT: Final = early_start.PORT
BATCH: Final = 64
"""Packets that are answered before the rest of the agent has its turn: about 2 ms."""
READ: Final = 512
"""Packets that are read in a turn. What is read and dropped costs a tenth, and makes room for those of others."""
RECEIVE_BYTES: Final = 4096
MAX_WAITING: Final = 1024
"""Packets whose answer comes from somebody else."""
MAX_WAITING_OF_ONE: Final = 128
MAX_CLIENTS: Final = 256
"""Connections."""
MAX_CLIENTS_OF_ONE: Final = 32
IDLE_S: Final = 10.0
_LENGTH: Final = struct.Struct("!H")

Client: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""The address and the port come first."""


class DnsServer:
    """`run` it in a task of its own, and tell it where to `listen`.

    `asker_of` says who has an address.
    """

    def __init__(
        self,
        zone: Zone,
        servers: NodeServers,
        asker_of: Callable[[str], Asker],
        *,
        port: int = PORT,
        idle_s: float = IDLE_S,
        budget: Budget | None = None,
        early: Sequence[socket.socket] = (),
    ) -> None:
        """`early`: sockets that were bound before, and may hold questions already."""
        self._zone = zone
        self._servers = servers
        self._asker_of = asker_of
        self._port = port
        self._idle_s = idle_s
        self._budget = budget or Budget()
        self._clock = time.monotonic
        self._shuffle = random.Random().shuffle  # noqa: S311 - it spreads load
        self._addresses: tuple[str, ...] = ()
        self._udp: list[socket.socket] = []
        self._early = list(early)
        self._tcp: list[asyncio.Server] = []
        self._group: asyncio.TaskGroup | None = None
        self._waiting: Counter[str] = Counter()
        self._clients: dict[asyncio.StreamWriter, str] = {}

    @property
    def refused(self) -> Mapping[str, int]:
        """Questions that were dropped because their client asked too many, by its address."""
        return self._budget.refused

    async def run(self) -> None:
        """Ends only by being cancelled, and listens nowhere then."""
        async with asyncio.TaskGroup() as self._group:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.close()

    async def listen(self, *addresses: str) -> None:
        """Answer at these addresses from now on, and at no others. Raises Temporary."""
        if addresses == self._addresses:
            return
        self.close()
        try:
            await self._listen_at(addresses)
        finally:
            self._close_early()

    async def _listen_at(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            try:
                opened = self._take_early(address) or early_start.bound(address, self._port)
                self._udp.append(opened)
                self._tcp.append(await asyncio.start_server(self._serve, address, self._port, limit=wire.TCP_BYTES))
            except OSError as error:
                self.close()
                raise _deaf(address, self._port, error) from error
            asyncio.get_running_loop().add_reader(opened, self._readable, opened)
        self._addresses = tuple(addresses)

    def _take_early(self, address: str) -> socket.socket | None:
        for opened in self._early:
            if opened.getsockname()[:2] == (address, self._port):
                self._early.remove(opened)
                return opened
        return None

    def _close_early(self) -> None:
        for opened in self._early:
            opened.close()
        self._early.clear()

    def close(self) -> None:
        """Listen nowhere."""
        self._addresses = ()
        for opened in self._udp:
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()
        self._udp.clear()
        for server in self._tcp:
            server.close()
        self._tcp.clear()
        for writer in self._clients:
            writer.close()

    # UDP: the socket itself and not a transport, which has one packet a turn of the loop

    def _readable(self, opened: socket.socket) -> None:
        left, now = BATCH, self._clock()
        for _ in range(READ):
            if not left:
                return
            try:
                packet, client = opened.recvfrom(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP message for an answer that was sent
                continue
            if self._budget.spend(client[0], now):
                metrics.DNS_DROPPED.inc()
                self._refuse(client[0])
                continue
            left -= 1
            answer = respond.respond(packet, self._zone, self._asker_of(client[0]), self._shuffle, udp=True)
            if isinstance(answer, Forward):
                self._forward(opened, answer, client)
            elif answer is not None:
                metrics.answered(answer)
                _send(opened, answer, client)

    def _refuse(self, client: str) -> None:
        """It is not answered: a C library that hears nothing asks again, one that is refused gives up."""
        if self._budget.refuse(client):
            log.warning("a task asks for more names than it may; some of its questions are dropped", address=client)

    def _forward(self, opened: socket.socket, asked: Forward, client: Client) -> None:
        """Over the limit it is dropped: the client asks again, and has the next turn."""
        full = self._waiting.total() >= MAX_WAITING or self._waiting[client[0]] >= MAX_WAITING_OF_ONE
        if full or self._group is None:
            metrics.DNS_DROPPED.inc()
            return
        metrics.DNS_FORWARDED.inc()
        self._waiting[client[0]] += 1
        self._group.create_task(self._ask(opened, asked, client))

    async def _ask(self, opened: socket.socket, asked: Forward, client: Client) -> None:
        try:
            answer = await self._servers.ask(asked.upstream, tcp=False)
        finally:
            self._waiting[client[0]] -= 1
            if not self._waiting[client[0]]:
                del self._waiting[client[0]]
        if opened.fileno() >= 0:
            _send(opened, wire.write(asked.query, answer, udp=True), client)

    # TCP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: its packets one after the other, until it goes or says nothing for a while."""
        address = writer.get_extra_info("peername")[0]
        self._clients[writer] = address
        try:
            if self._has_room(address):
                await self._converse(reader, writer, address)
        except (OSError, TimeoutError, EOFError):
            writer.transport.abort()  # it has gone, or says or reads nothing
        finally:
            del self._clients[writer]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _has_room(self, address: str) -> bool:
        ours = sum(each == address for each in self._clients.values())
        return len(self._clients) <= MAX_CLIENTS and ours <= MAX_CLIENTS_OF_ONE

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        while True:
            async with asyncio.timeout(self._idle_s):
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                packet = await reader.readexactly(size)
            wait_s = self._budget.spend(address, self._clock())
            while wait_s:  # another connection of the same task may be sooner
                await asyncio.sleep(wait_s)
                wait_s = self._budget.spend(address, self._clock())
            answer = respond.respond(packet, self._zone, self._asker_of(address), self._shuffle, udp=False)
            if isinstance(answer, Forward):
                metrics.DNS_FORWARDED.inc()
                found = await self._servers.ask(answer.upstream, tcp=True)
                answer = wire.write(answer.query, found, udp=False)
            elif answer is not None:
                metrics.answered(answer)
            if answer is None:
                return
            writer.write(_LENGTH.pack(len(answer)) + answer)
            async with asyncio.timeout(self._idle_s):
                await writer.drain()


def _deaf(address: str, port: int, error: OSError) -> Temporary:
    taken = f"; end whoever else listens on port {port} of this node, or bind it to another address"
    remedy = taken if error.errno == errno.EADDRINUSE else ""
    why = os.strerror(error.errno) if error.errno else str(error)
    return Temporary(f"names cannot be answered at {address} port {port}: {why}{remedy}", reason="NetworkFailed")


def _send(opened: socket.socket, answer: bytes, client: Client) -> None:
    with contextlib.suppress(OSError):  # it has gone, or the network is full: then it asks again
        opened.sendto(answer, client)
