"""A name server of the outside world, over UDP and TCP, that answers what a test tells it to, well or badly.

The packets are an independent library's, so a mistake of ours cannot hide by being made on both sides.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Reply = Callable[[dns.message.Message], list[bytes]]
"""A query → the packets that are sent, in their order."""


class NameServer:
    """Answers at one address and port; `asked` has every query that came, `tcp` and `udp`."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.asked: list[tuple[str, dns.message.Message]] = []
        self.ports: list[int] = []
        """Those that queries came from."""
        self.records: dict[tuple[str, str], list[str]] = {}  # (name, type) → texts of records
        self.ttl_s = 60
        self.reply: Reply = self.answer
        self.held = asyncio.Event()
        """Not set: answers wait."""
        self.held.set()

    def answer(self, query: dns.message.Message) -> list[bytes]:
        """What the records say."""
        made = dns.message.make_response(query, recursion_available=True)
        (question,) = query.question
        texts = self.records.get((question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)))
        if texts:
            kind = dns.rdatatype.to_text(question.rdtype)
            made.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *texts))
        else:
            made.set_rcode(dns.rcode.NXDOMAIN)
            made.authority.append(dns.rrset.from_text("example.com.", 60, "IN", "SOA", "ns. root. 1 2 3 4 5"))
        return [made.to_wire(max_size=65535)]

    def asked_for(self, name: str) -> list[str]:
        """How it was asked for a name."""
        return [how for how, query in self.asked if query.question[0].name.to_text() == name]


def failing(code: dns.rcode.Rcode) -> Reply:
    """Refuses everything."""

    def reply(query: dns.message.Message) -> list[bytes]:
        made = dns.message.make_response(query)
        made.set_rcode(code)
        return [made.to_wire(max_size=65535)]

    return reply


def silent(_: dns.message.Message) -> list[bytes]:
    """Says nothing."""
    return []


@contextlib.asynccontextmanager
async def serving(host: str, port: int) -> AsyncIterator[NameServer]:
    """A server that listens."""
    server = NameServer(host, port)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                query = dns.message.from_wire(await reader.readexactly(size))
                server.asked.append(("tcp", query))
                for packet in server.reply(query):
                    writer.write(struct.pack("!H", len(packet)) + packet)
        writer.close()

    class Udp(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            query = dns.message.from_wire(data)
            server.asked.append(("udp", query))
            server.ports.append(addr[1])
            waiting.append(asyncio.ensure_future(self._reply(query, addr)))

        async def _reply(self, query: dns.message.Message, addr: tuple[str, int]) -> None:
            await server.held.wait()
            for packet in server.reply(query):
                made = dns.message.from_wire(packet, ignore_trailing=True)
                transport.sendto(_cut(made) if len(packet) > 1232 else packet, addr)

    waiting: list[asyncio.Future[None]] = []
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=(host, port))
    listening = await asyncio.start_server(serve, host, port, family=socket.AF_INET)
    try:
        yield server
    finally:
        for task in waiting:
            task.cancel()
        transport.close()
        listening.close()


def _cut(made: dns.message.Message) -> bytes:
    made.flags |= dns.flags.TC
    made.answer.clear()
    return made.to_wire()
