"""The name server over real sockets: what it answers, what it asks others for, and what it does not put up with."""

import asyncio
import contextlib
import random
import socket
import struct
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from agent.adapters.dns import MAX_CLIENTS_OF_ONE, MAX_WAITING_OF_ONE
from agent.errors import Temporary
from tests.support.aio import bounded, until
from tests.support.dnsworld import FIRST, SECOND, TIMEOUT_S, Worlds, texts, world_of
from tests.support.nameserver import failing, silent


@pytest.fixture
def worlds(tmp_path: Path) -> Worlds:
    return lambda **more: world_of(tmp_path / "resolv.conf", **more)


@bounded(20)
async def test_names_of_the_cluster(worlds: Worlds) -> None:
    """Over UDP and TCP, and nobody outside hears of them."""
    async with worlds() as world:
        for tcp in (False, True):
            assert texts(await world.ask("web", tcp=tcp)) == {"10.96.0.7"}
            assert (await world.ask("nosuch.default.orch", tcp=tcp)).rcode() == dns.rcode.NXDOMAIN
        assert world.first.asked == []


@bounded(20)
async def test_an_answer_that_is_too_long_comes_over_tcp(worlds: Worlds) -> None:
    """Over UDP as much of it as fits, with the flag that makes a resolver ask again."""
    async with worlds() as world:
        for edns, count in ((None, 30), (0, 75)):
            short = await world.ask("big", edns=edns)
            assert short.flags & dns.flags.TC
            assert len(texts(short)) == count
        whole = await world.ask("big", tcp=True)
        assert not whole.flags & dns.flags.TC
        assert len(texts(whole)) == 200


@bounded(20)
async def test_several_questions_over_one_connection(worlds: Worlds) -> None:
    """All at once, and in pieces; each is answered, in order."""
    async with worlds() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        queries = [dns.message.make_query(name, "A") for name in ("web", "big-7.big", "nosuch.orch")]
        data = b"".join(struct.pack("!H", len(query.to_wire())) + query.to_wire() for query in queries)
        for begin in range(0, len(data), 7):
            writer.write(data[begin : begin + 7])
            await writer.drain()
        for query in queries:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            assert query.is_response(dns.message.from_wire(await reader.readexactly(size)))
        writer.close()


@bounded(20)
async def test_names_of_others_are_asked_for_and_kept(worlds: Worlds) -> None:
    """With the time that is left; what is not there is kept, too."""
    async with worlds() as world:
        world.first.records["example.com.", "A"] = ["192.0.2.1", "192.0.2.2"]
        for tcp in (False, False, True):
            answer = await world.ask("Example.com", tcp=tcp)
            assert texts(answer) == {"192.0.2.1", "192.0.2.2"}
            assert answer.question[0].name.to_text() == "Example.com."
            assert not answer.flags & dns.flags.AA
            assert answer.answer[0].ttl in {59, 60}
            assert (await world.ask("nosuch.example.com")).rcode() == dns.rcode.NXDOMAIN
        assert world.first.asked_for("example.com.") == ["udp"]
        assert world.first.asked_for("nosuch.example.com.") == ["udp"]


@bounded(20)
async def test_equal_questions_are_asked_once(worlds: Worlds) -> None:
    """However many wait for the answer; whoever asks otherwise asks for himself."""
    async with worlds() as world:
        world.first.records["example.com.", "A"] = ["192.0.2.1"]
        world.first.held.clear()
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(world.ask(name)) for name in ["example.com", "EXAMPLE.com"] * 10]
            asking.append(group.create_task(world.ask("example.com", "AAAA")))
            await until(lambda: len(world.first.asked) == 2, what="both questions are on their way")
            world.first.held.set()
        assert [texts(task.result()) for task in asking[:20]] == [{"192.0.2.1"}] * 20
        assert len(world.first.asked) == 2


@bounded(20)
async def test_ports_and_numbers_cannot_be_guessed(worlds: Worlds) -> None:
    """Both are drawn for every question."""
    async with worlds() as world:
        for number in range(30):
            await world.ask(f"n{number}.example.com")
        for drawn in ([query.id for _, query in world.first.asked], world.first.ports):
            assert len(set(drawn)) > 25
            assert max(drawn) - min(drawn) > 5_000
            assert drawn != sorted(drawn)


@bounded(20)
async def test_answers_that_are_none_are_passed_over(worlds: Worlds) -> None:
    """A wrong number, another name, another type, rubbish: the right one comes after them."""
    async with worlds() as world:
        world.first.records["example.com.", "A"] = ["192.0.2.1"]

        def reply(query: dns.message.Message) -> list[bytes]:
            wrong = dns.message.make_response(query)
            wrong.id ^= 1
            other = dns.message.make_response(dns.message.make_query("example.org", "A", id=query.id))
            return [wrong.to_wire(), other.to_wire(), query.to_wire(), *world.first.answer(query)]

        world.first.reply = reply
        assert texts(await world.ask("example.com")) == {"192.0.2.1"}


@bounded(20)
async def test_the_next_server_is_asked(worlds: Worlds) -> None:
    """When one is silent, is not there or fails; and one that was silent is not asked first again."""
    async with worlds() as world:
        for name in ("a", "b", "c"):
            world.second.records[f"{name}.example.com.", "A"] = ["192.0.2.1"]
        world.use(FIRST, SECOND)
        world.first.reply = failing(dns.rcode.SERVFAIL)
        assert texts(await world.ask("a.example.com")) == {"192.0.2.1"}
        world.first.reply = silent
        assert texts(await world.ask("b.example.com")) == {"192.0.2.1"}
        before = len(world.first.asked)
        assert texts(await world.ask("c.example.com")) == {"192.0.2.1"}
        assert len(world.first.asked) == before
        world.use("127.0.0.23", SECOND)  # nobody is there: the kernel says so at once
        world.second.records["d.example.com.", "A"] = ["192.0.2.4"]
        started = asyncio.get_running_loop().time()
        assert texts(await world.ask("d.example.com")) == {"192.0.2.4"}
        assert asyncio.get_running_loop().time() - started < TIMEOUT_S


@bounded(20)
async def test_nobody_to_ask(worlds: Worlds) -> None:
    """SERVFAIL: at once when there is no server, and in a bounded time when none answers; and it is not kept."""
    async with worlds() as world:
        for servers in ((), (FIRST,)):
            world.use(*servers)
            world.first.reply = silent
            started = asyncio.get_running_loop().time()
            assert (await world.ask("example.com")).rcode() == dns.rcode.SERVFAIL
            took_s = asyncio.get_running_loop().time() - started
            assert took_s < 0.3 if not servers else took_s < 2 * TIMEOUT_S + 0.5
        world.resolv_conf.unlink()
        assert (await world.ask("example.com")).rcode() == dns.rcode.SERVFAIL
        world.use(FIRST)
        world.first.reply = world.first.answer
        assert (await world.ask("example.com")).rcode() == dns.rcode.NXDOMAIN


@bounded(20)
async def test_a_changed_file_counts_at_once(worlds: Worlds) -> None:
    """Without a restart of anything."""
    async with worlds() as world:
        world.first.records["a.example.com.", "A"] = ["192.0.2.1"]
        world.second.records["b.example.com.", "A"] = ["192.0.2.2"]
        assert texts(await world.ask("a.example.com")) == {"192.0.2.1"}
        world.use(SECOND)
        assert texts(await world.ask("b.example.com")) == {"192.0.2.2"}
        assert world.first.asked_for("b.example.com.") == []


@bounded(20)
async def test_a_long_answer_of_others(worlds: Worlds) -> None:
    """Whoever asks over UDP is told so, whoever asks over TCP has it whole; a short EDNS size is kept to."""
    async with worlds() as world:
        world.first.records["long.example.com.", "A"] = [f"192.0.2.{n}" for n in range(1, 201)]
        assert (await world.ask("long.example.com")).flags & dns.flags.TC
        assert world.first.asked_for("long.example.com.") == ["udp"]
        assert len(texts(await world.ask("long.example.com", tcp=True))) == 200
        assert world.first.asked_for("long.example.com.") == ["udp", "udp", "tcp"]
        middle = [f"192.0.2.{n}" for n in range(1, 51)]
        world.first.records["middle.example.com.", "A"] = middle
        assert texts(await world.ask("middle.example.com")) == set(middle)
        plain = await world.ask("middle.example.com", edns=None)
        assert plain.flags & dns.flags.TC
        assert len(plain.to_wire()) <= 512


@bounded(20)
async def test_a_server_from_before_edns(worlds: Worlds) -> None:
    """It is asked again in its own words."""
    async with worlds() as world:
        world.first.records["example.com.", "A"] = ["192.0.2.1"]

        def reply(query: dns.message.Message) -> list[bytes]:
            return failing(dns.rcode.FORMERR)(query) if query.edns >= 0 else world.first.answer(query)

        world.first.reply = reply
        assert texts(await world.ask("example.com")) == {"192.0.2.1"}


@bounded(20)
async def test_strangers_are_refused(worlds: Worlds) -> None:
    """Over both, and nothing is asked for them."""
    async with worlds() as world:
        world.strangers.add("127.0.0.9")
        for tcp in (False, True):
            answer = await world.ask("example.com", tcp=tcp, source="127.0.0.9")
            assert answer.rcode() == dns.rcode.REFUSED
        assert world.first.asked == []


@bounded(30)
async def test_one_client_cannot_take_everything(worlds: Worlds) -> None:
    """Its questions and connections are bounded; another client's are answered meanwhile."""
    async with worlds() as world:

        def asked() -> set[str]:
            """Each once: what nobody answers for a while is asked again."""
            return {str(question.question[0].name) for _, question in world.first.asked}

        world.first.held.clear()
        world.first.records["other.example.com.", "A"] = ["192.0.2.1"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
            greedy.bind(("127.0.0.30", 0))
            for number in range(MAX_WAITING_OF_ONE + 100):
                greedy.sendto(
                    dns.message.make_query(f"n{number}.example.com", "A").to_wire(), ("127.0.0.1", world.port)
                )
                await asyncio.sleep(0)
            await until(lambda: len(asked()) >= MAX_WAITING_OF_ONE, what="its questions are asked")
            assert texts(await world.ask("web")) == {"10.96.0.7"}
            assert len(asked()) == MAX_WAITING_OF_ONE
        world.first.held.set()
        assert texts(await world.ask("other.example.com")) == {"192.0.2.1"}
        connections = [
            await asyncio.open_connection("127.0.0.1", world.port, local_addr=("127.0.0.30", 0))
            for _ in range(MAX_CLIENTS_OF_ONE + 1)
        ]
        assert await connections[-1][0].read() == b"", "one too many is closed"
        assert texts(await world.ask("web", tcp=True)) == {"10.96.0.7"}
        for _, writer in connections:
            writer.close()


@bounded(20)
async def test_whoever_says_nothing_is_sent_away(worlds: Worlds) -> None:
    """Also in the middle of a question."""
    async with worlds(idle_s=0.2) as world:
        for said in (b"", b"\0", b"\0\x20half"):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(said)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert texts(await world.ask("web")) == {"10.96.0.7"}


@bounded(30)
async def test_rubbish_hurts_nobody(worlds: Worlds) -> None:
    """Whatever bytes come, over both, the next question is answered."""
    async with worlds() as world:
        chance = random.Random(5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rude:
            for _ in range(500):
                rude.sendto(chance.randbytes(chance.randrange(200)), ("127.0.0.1", world.port))
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(chance.randbytes(chance.randrange(200)))
            writer.transport.abort()
        assert texts(await world.ask("web")) == {"10.96.0.7"}
        assert texts(await world.ask("web", tcp=True)) == {"10.96.0.7"}


@bounded(20)
async def test_a_port_that_is_taken_is_told(worlds: Worlds) -> None:
    """With the address, the port and the remedy; once it is free, the same call succeeds; listening may be repeated."""
    async with worlds() as world:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", world.port))
            with pytest.raises(Temporary, match=rf"at 127\.0\.0\.2 port {world.port}: .*in use; end whoever else"):
                await world.ours.listen("127.0.0.2")
        await world.ours.listen("127.0.0.2")
        await world.ours.listen("127.0.0.2")
        query = dns.message.make_query("web", "A")
        assert texts(await dns.asyncquery.udp(query, "127.0.0.2", timeout=5, port=world.port)) == {"10.96.0.7"}
        with pytest.raises((OSError, dns.exception.Timeout)):
            await dns.asyncquery.tcp(query, "127.0.0.1", timeout=0.5, port=world.port)


@bounded(20)
async def test_an_end_leaves_nothing(worlds: Worlds) -> None:
    """With questions on their way and connections open: the port is free at once."""
    async with worlds() as world:
        world.first.held.clear()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(dns.message.make_query("example.com", "A").to_wire(), ("127.0.0.1", world.port))
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        await until(lambda: bool(world.first.asked), what="the question is on its way")
    assert await reader.read() == b""
    writer.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", world.port))
        assert again.getsockname()[1] == world.port
