"""The node's own name servers, asked for whatever is not of the cluster.

Three rules: every question goes out from a port and with a number that nobody can guess, and only an answer to that
question from that server is taken; equal questions that are on their way are asked once; and whoever asks gets an
answer in a bounded time, SERVFAIL in the end.
"""

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.core.dns import resolvers, wire
from agent.core.dns.cache import Cache
from agent.core.dns.resolvers import Resolvers
from agent.core.dns.respond import Upstream
from agent.core.dns.wire import Answer, Question

RESOLV_CONF: Final = Path("/etc/resolv.conf")
PORT: Final = 53
TIMEOUT_S: Final = 2.0
ATTEMPTS: Final = 2
"""How often a single server is asked. Of several, each is asked once."""
MAX_QUESTIONS: Final = 512
"""On their way at once; each has a socket."""
AVOIDED_S: Final = 30.0
"""How long a server that did not answer is asked after the others."""

_FAILED: Final = Answer(wire.SERVFAIL)
_LENGTH: Final = struct.Struct("!H")


class NodeServers:
    """The servers of a resolv.conf, which is read again when it has changed."""

    def __init__(self, path: Path = RESOLV_CONF, *, port: int = PORT, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._port = port
        self._timeout_s = timeout_s
        self._seen: tuple[int, int, int] | None = None
        self._resolvers = Resolvers()
        self._failed_at: dict[str, float] = {}
        self._asked: dict[tuple[Upstream, bool], asyncio.Future[Answer]] = {}
        self._cache = Cache()
        self._chance = random.SystemRandom()
        self.own_addresses: tuple[str, ...] = ()
        """Where this node answers itself, which is nobody to ask."""

    @property
    def search(self) -> tuple[str, ...]:
        """The domains that the node looks for names in."""
        return self._read().search

    async def ask(self, question: Upstream, *, tcp: bool) -> Answer:
        """The answer. Over UDP it may be one that says that it is truncated."""
        key = (question, tcp)
        known = self._cache.get(question, time.monotonic())
        if known is not None:
            return known
        if key in self._asked:
            return await asyncio.shield(self._asked[key])
        if len(self._asked) >= MAX_QUESTIONS:
            return _FAILED
        answer = _FAILED
        self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._ask_servers(question, tcp=tcp)
        finally:  # also when whoever asked first has gone: the others get an answer
            self._asked.pop(key).set_result(answer)
        self._cache.put(question, answer, time.monotonic())
        return answer

    async def _ask_servers(self, question: Upstream, *, tcp: bool) -> Answer:
        for server in self._in_order():
            try:
                answer = await self._ask(server, question, tcp=tcp)
            except (OSError, TimeoutError, EOFError):
                self._failed_at[server] = time.monotonic()
                continue
            if answer.code in {wire.NOERROR, wire.NXDOMAIN}:
                self._failed_at.pop(server, None)
                return answer
        return _FAILED

    def _in_order(self) -> Sequence[str]:
        """Those that answered before those that did not a short while ago."""
        servers = [server for server in self._read().servers if server not in self.own_addresses]
        if len(servers) == 1:
            return servers * ATTEMPTS
        late = time.monotonic() - AVOIDED_S
        return sorted(servers, key=lambda server: max(self._failed_at.get(server, late), late))

    def _read(self) -> Resolvers:
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._resolvers = resolvers.parse(self._path.read_text(errors="replace"))
                self._seen = seen
                self._failed_at.clear()
        except OSError:  # there is none: nobody to ask
            self._resolvers, self._seen = Resolvers(), None
        return self._resolvers

    async def _ask(self, server: str, question: Upstream, *, tcp: bool) -> Answer:
        """Raises OSError, TimeoutError or EOFError."""
        async with asyncio.timeout(self._timeout_s):
            answer = await self._over_udp(server, question, with_edns=True)
            if answer.code in {wire.FORMERR, wire.NOTIMP}:  # from before EDNS
                answer = await self._over_udp(server, question, with_edns=False)
        if answer.truncated and tcp:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._over_tcp(server, question)
        return answer

    async def _over_udp(self, server: str, question: Upstream, *, with_edns: bool) -> Answer:
        number = self._chance.randrange(1 << 16)
        loop = asyncio.get_running_loop()
        exchange = _Exchange(number, Question(question.name, question.kind), loop.create_future())
        # A connected socket: the kernel chooses its port at random, and drops what others send there.
        transport, _ = await loop.create_datagram_endpoint(lambda: exchange, remote_addr=(server, self._port))
        try:
            transport.sendto(question.to_wire(number, with_edns=with_edns))
            return await exchange.answer
        finally:
            transport.close()

    async def _over_tcp(self, server: str, question: Upstream) -> Answer:
        number = self._chance.randrange(1 << 16)
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            packet = question.to_wire(number)
            writer.write(_LENGTH.pack(len(packet)) + packet)
            (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            received = await reader.readexactly(size)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        answer = wire.parse_answer(received, number, Question(question.name, question.kind))
        if answer is None:
            raise EOFError(f"{server} answers something else over TCP")
        return answer


class _Exchange(asyncio.DatagramProtocol):
    """One question over UDP. What is no answer to it is passed over: the right one may still come."""

    def __init__(self, number: int, question: Question, answer: "asyncio.Future[Answer]") -> None:
        self._number = number
        self._question = question
        self.answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr  # the socket is connected
        answer = wire.parse_answer(data, self._number, self._question)
        if answer is not None and not self.answer.done():
            self.answer.set_result(answer)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionAbortedError("the socket was closed"))
