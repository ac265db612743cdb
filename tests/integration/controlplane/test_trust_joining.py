"""The door: what can be wrong with a join, and with a token; each has one clear error, and a second try works."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from controlplane.core.trust import over
from protos.orch.v1 import trust_pb2
from tests.support import aio, trusted
from trust import framing, joining
from trust.folder import IDENTITY, PENDING, Folder


async def not_joined(made: trusted.Cluster, name: str, token: str = "", **more: object) -> joining.NotJoined:
    with pytest.raises(joining.NotJoined) as refused:
        await made.join(name, token, **more)  # type: ignore[arg-type]
    assert not (made.folder / name / IDENTITY).exists(), "nothing half done"
    return refused.value


@aio.bounded(60)
async def test_a_join_that_cannot_be_says_why_and_a_second_try_works(tmp_path: Path) -> None:
    """Another cluster's token, a damaged one, an expired one, a wrong clock, a name that is taken."""
    async with trusted.cluster(tmp_path) as made:
        other = trusted.found(tmp_path / "other")
        assert "not of the cluster at" in (await not_joined(made, "n1", other["node_token"])).message
        assert "damaged" in (await not_joined(made, "n1", made.tokens["node_token"][:-1])).message
        assert "1 h 0 min ahead" in (await not_joined(made, "n1", clock=lambda: made.now_ms() + 3_630_000)).message
        async with made.trust(made.admin) as admin:
            short = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", lifetime=1))
            once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        await aio.until(lambda: made.now_ms() > short.record.expires_at, what="the token expires", timeout_s=5)
        expired = await not_joined(made, "n1", short.token)
        assert expired.message == f"the token {short.record.id} has expired"
        assert "orchctl cluster token create --role node" in expired.hint
        await made.join("n1", once.token)
        assert "is used up" in (await not_joined(made, "n2", once.token)).message
        await made.join("n2")
        again = await _as_another_machine(made, "n1")
        assert "a node n1 already, with another key" in again.message


@pytest.mark.parametrize("off_ms", [3_630_000, -3_630_000])
@aio.bounded(60)
async def test_after_a_wrong_clock_the_same_machine_joins_with_the_same_token(off_ms: int, tmp_path: Path) -> None:
    """The one use of the token was not used up, and the next try is with a clock that was set."""
    async with trusted.cluster(tmp_path) as made:
        async with made.trust(made.admin) as admin:
            once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        wrong = await not_joined(made, "n1", once.token, clock=lambda: made.now_ms() + off_ms)
        assert f"min {'ahead of' if off_ms > 0 else 'behind'} the control plane's" in wrong.message
        assert "timedatectl set-ntp true" in wrong.message
        own = await made.join("n1", once.token)
        async with trusted.session(made, own):
            assert made.instance.dispatcher.sessions.get("n1") is not None


async def _as_another_machine(made: trusted.Cluster, name: str) -> joining.NotJoined:
    """Somebody with a good token who takes another's id."""
    wish = joining.Wish(name=name, node_name="thief")
    with pytest.raises(joining.NotJoined) as refused:
        await asyncio.to_thread(joining.join, made.door, made.tokens["node_token"], wish, Folder(made.folder / "thief"))
    return refused.value


@aio.bounded(60)
async def test_a_join_whose_answer_was_lost_is_the_same_join_the_next_time(tmp_path: Path) -> None:
    """The key was kept: the one use of the token is not used up twice."""
    async with trusted.cluster(tmp_path) as made:
        async with made.trust(made.admin) as admin:
            once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        own = await made.join("n1", once.token)
        folder = Folder(tmp_path / "n1")
        folder.write(PENDING, own.key)
        folder.identity.unlink()  # as if the answer had not come
        again = await made.join("n1", once.token)
        assert again.facts.key_digest == own.facts.key_digest
        async with trusted.session(made, again):
            assert made.instance.dispatcher.sessions.get("n1") is not None


@aio.bounded(60)
async def test_a_server_that_is_not_there_or_is_no_door_is_told(tmp_path: Path) -> None:
    """And the port of the control plane is no door."""
    async with trusted.cluster(tmp_path) as made:
        door, made.door = made.door, "127.0.0.1:1"
        assert "cannot reach the door of the control plane at 127.0.0.1:1" in (await not_joined(made, "n1")).message
        made.door = made.address
        assert "does not answer as one" in (await not_joined(made, "n1")).message
        made.door = door
        await made.join("n1")


@aio.bounded(60)
async def test_a_door_that_answers_little_by_little_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a byte comes: there is one end for the whole exchange."""
    monkeypatch.setattr(framing, "TIMEOUT_S", 0.5)
    tokens = trusted.found(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cp" / IDENTITY)

    async def dribble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(framing.MAX_MESSAGE_BYTES.to_bytes(framing.HEAD_BYTES, "big"))
        with contextlib.suppress(ConnectionError):
            for _ in range(framing.MAX_MESSAGE_BYTES):
                await asyncio.sleep(framing.TIMEOUT_S / 5)
                writer.write(b"\0")
                await writer.drain()

    async with await asyncio.start_server(dribble, "127.0.0.1", 0, ssl=context) as server:
        door = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(joining.NotJoined, match=f"cannot reach the door of .* at {door}: no answer in time"):
            await asyncio.to_thread(joining.join, door, tokens["node_token"], joining.Wish(), Folder(tmp_path / "n1"))


@aio.bounded(60)
async def test_a_token_is_shown_once_and_worthless_once_revoked(tmp_path: Path) -> None:
    """A rotation makes one and revokes the other in the same moment."""
    async with trusted.cluster(tmp_path) as made, made.trust(made.admin) as admin:
        first = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node"))
        second = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", replaces=first.record.id))
        listed = (await admin.ListTokens(trust_pb2.ListTokensRequest())).tokens
        assert first.record.id not in {one.id for one in listed}
        assert all(not one.digest for one in listed)
        assert second.token.split(".")[-1] not in str(listed)
        assert "or was never made here" in (await not_joined(made, "n1", first.token)).message
        await made.join("n1", second.token)


@aio.bounded(60)
async def test_the_door_bears_what_is_thrown_at_it(tmp_path: Path) -> None:
    """Noise, silence and a flood: it answers the next one that means it, and refuses the flood in words."""
    async with trusted.cluster(tmp_path) as made:
        host, port = made.door.split(":")
        context = joining._believing_anybody()
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\0\0\0\2\xff\xff"):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(noise)
            await writer.drain()
            writer.close()
            assert await reader.read() == b""
        await made.join("n1")
        results = await asyncio.gather(*(asyncio.to_thread(_knock, made.door) for _ in range(100)))
        assert 16 <= results.count("") < 100
        assert set(results) == {"", "too many are joining from 127.0.0.1 at once"}
        while await asyncio.to_thread(_knock, made.door):  # within the test's bound
            continue


@aio.bounded(60)
async def test_one_address_cannot_keep_the_others_out(tmp_path: Path) -> None:
    """Neither with connections that say nothing nor with requests without end: another one's are answered."""
    async with trusted.cluster(tmp_path) as made, contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            _, silent = await _opened(made.door, "127.0.0.66")
            stack.callback(silent.close)
        flood = [asyncio.create_task(_roots(made.door, "127.0.0.66")) for _ in range(60)]
        for _ in range(3):
            assert (await _roots(made.door, "127.0.0.7")).WhichOneof("response") == "roots"
        refused = {answer.refusal.message for answer in await asyncio.gather(*flood)}
        assert refused == {"too many are joining from 127.0.0.66 at once"}
        await made.join("n1")


async def _opened(door: str, own: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the door from an address of this machine."""
    host, port = door.split(":")
    context = joining._believing_anybody()
    return await asyncio.open_connection(host, int(port), ssl=context, local_addr=(own, 0))


async def _roots(door: str, own: str) -> trust_pb2.DoorResponse:
    """What the door says to who asks for its roots from an address of this machine."""
    reader, writer = await _opened(door, own)
    try:
        writer.write(framing.pack(trust_pb2.DoorRequest(roots=trust_pb2.RootsRequest())))
        size = framing.length(await reader.readexactly(framing.HEAD_BYTES))
        return framing.unpack(trust_pb2.DoorResponse, await reader.readexactly(size))
    finally:
        writer.close()


def _knock(door: str) -> str:
    """What the door refuses to tell its roots with; empty when it tells them."""
    try:
        joining._ask(door, joining._believing_anybody(), trust_pb2.DoorRequest(roots=trust_pb2.RootsRequest()))
    except joining.NotJoined as refused:
        return refused.message
    return ""


@aio.bounded(60)
async def test_the_leader_forgets_a_token_a_week_after_its_end(tmp_path: Path) -> None:
    """Until then the door says that it has expired, and that another is used up; then it knows neither."""
    async with trusted.cluster(tmp_path) as made, made.trust(made.admin) as admin:

        async def late(token: str) -> str:
            return (await not_joined(made, "n2", token, clock=made.now_ms)).message

        ending = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", lifetime=60_000))
        once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        await made.join("n1", once.token)
        made.ahead_ms = over.KEPT_MS - 60_000
        assert f"{ending.record.id} has expired" in await late(ending.token)
        assert f"{once.record.id} is used up" in await late(once.token)
        made.ahead_ms = over.KEPT_MS + 120_000
        await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node"))  # it looks again when something changes
        gone = lambda: not {ending.record.id, once.record.id} & {one.id for one in made.standing.registry.trust.tokens}  # noqa: E731
        await aio.until(gone, what="both are forgotten", timeout_s=20)
        for token in (ending.token, once.token):
            assert "or was never made here" in await late(token)
