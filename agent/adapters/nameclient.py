"""One question to a name server, over UDP. One rule: what is no answer to this question is not taken for one."""

import asyncio
import os
import socket
from ipaddress import IPv4Address

from agent.core.dns import names, wire

PORT = 53
_PACKET_BYTES = 65_535
_ADDRESS_BYTES = 4


async def ask(server: tuple[str, int], name: str, kind: int, *, timeout_s: float) -> wire.Answer:
    """What the server answers. Raises TimeoutError, ConnectionRefusedError and other OSErrors."""
    question = wire.Question(names.from_text(name), kind)
    number = int.from_bytes(os.urandom(2), "big")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect(server)
        async with asyncio.timeout(timeout_s):
            await loop.sock_sendall(asking, wire.write_query(number, question, flags=wire.RD, edns=None))
            while True:
                answer = wire.parse_answer(await loop.sock_recv(asking, _PACKET_BYTES), number, question)
                if answer is not None:
                    return answer


def addresses(answer: wire.Answer) -> set[str]:
    """The IPv4 addresses in it."""
    found = (record.data for record in answer.answers if record.kind == wire.A)
    return {str(IPv4Address(data)) for data in found if len(data) == _ADDRESS_BYTES}
