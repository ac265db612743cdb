"""One question to a name server, over UDP. One rule: what is no answer to this question is not taken for one."""

import asyncio
import os
import socket
from ipaddress import ip_address

from agent.core.dns import names, wire
from protos import families
from protos.families import V6

PORT = 53
_PACKET_BYTES = 65_535
_ADDRESS_BYTES = {wire.A: 4, wire.AAAA: 16}


async def ask(server: tuple[str, int], name: str, kind: int, *, timeout_s: float) -> wire.Answer:
    """What the server answers. Raises TimeoutError, ConnectionRefusedError and other OSErrors."""
    question = wire.Question(names.from_text(name), kind)
    number = int.from_bytes(os.urandom(2), "big")
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if families.of(server[0]) is V6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect(server)
        async with asyncio.timeout(timeout_s):
            await loop.sock_sendall(asking, wire.write_query(number, question, flags=wire.RD, edns=None))
            while True:
                answer = wire.parse_answer(await loop.sock_recv(asking, _PACKET_BYTES), number, question)
                if answer is not None:
                    return answer


def addresses(answer: wire.Answer) -> set[str]:
    """The addresses in it, of both families."""
    return {str(ip_address(one.data)) for one in answer.answers if len(one.data) == _ADDRESS_BYTES.get(one.kind)}
