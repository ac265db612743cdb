"""The name server with addresses of both families, its own and others'."""

import asyncio
import select
import socket
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from agent import early
from tests.support.aio import bounded, until
from tests.support.dnsworld import Worlds, free_port, texts, world_of


@pytest.fixture
def worlds(tmp_path: Path) -> Worlds:
    return lambda **more: world_of(tmp_path / "resolv.conf", **more)


@bounded(20)
async def test_it_answers_at_an_address_of_each_family(worlds: Worlds) -> None:
    """Over UDP and TCP, whoever asks."""
    async with worlds() as world:
        await world.ours.listen("127.0.0.1", "::1")
        for host in ("127.0.0.1", "::1"):
            for send in (dns.asyncquery.udp, dns.asyncquery.tcp):
                query = dns.message.make_query("web.default.orch", "A")
                assert texts(await send(query, host, timeout=5, port=world.port)) == {"10.96.0.7"}


@bounded(20)
async def test_a_socket_of_each_family_may_have_been_there_before(worlds: Worlds) -> None:
    """What was asked at it meanwhile is answered; one that is of no use is closed."""
    hosts = ("127.0.0.1", "::1")
    port = free_port("127.0.0.1", "127.0.0.9")
    sockets = [early.bound(host, port) for host in (*hosts, "127.0.0.9")]
    query = dns.message.make_query("web.default.orch", "A")
    async with worlds(port=port, early=sockets, listening=False) as world:
        asking = [asyncio.create_task(dns.asyncquery.udp(query, host, timeout=5, port=port)) for host in hosts]
        await until(lambda: all(map(holds_something, sockets[:2])), what="the questions have come")
        await world.ours.listen(*hosts)
        for each in asking:
            assert texts(await each) == {"10.96.0.7"}
        assert [one.fileno() >= 0 for one in sockets] == [True, True, False]


def holds_something(opened: socket.socket) -> bool:
    """Something came that nobody has read."""
    return bool(select.select([opened], [], [], 0)[0])


@bounded(20)
async def test_a_server_of_ipv6_is_asked(worlds: Worlds) -> None:
    """As any other."""
    async with worlds() as world:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as outside:
            outside.setblocking(False)
            outside.bind(("::1", world.outside))
            world.use("::1")
            asking = asyncio.create_task(world.ask("there.example"))
            question, client = await asyncio.get_running_loop().sock_recvfrom(outside, 1000)
            answer = dns.message.make_response(dns.message.from_wire(question))
            answer.answer.append(dns.rrset.from_text("there.example.", 60, "IN", "A", "192.0.2.7"))
            outside.sendto(answer.to_wire(), client)
            assert texts(await asking) == {"192.0.2.7"}
