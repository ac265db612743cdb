"""The prober against real servers: what is a good answer, and what is said of a bad one."""

import asyncio
import contextlib
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agent import ports
from agent.adapters.probes import NodeProber
from agent.core.container import ContainerRequest
from agent.core.network import Attachment
from agent.core.probes import Answer, Target
from protos.orch.v1 import objects_pb2 as pb
from tests.contract.agent.conftest import RuntimeMaker
from tests.contract.agent.test_runtime import Container
from tests.support.aio import bounded, until
from tests.support.fake_agent import FakeContainer, FakeMachine, FakeRuntime
from tests.support.fake_prober import FakeProber

HOST = "127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REAL = pytest.mark.parametrize("runtimes", [pytest.param("real", marks=pytest.mark.root)], indirect=True)
"""The fake has no shell."""
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def prober(runtime: ports.Runtime | None = None) -> NodeProber:
    return NodeProber(runtime or FakeRuntime(FakeMachine()))


def target(port: int = 0) -> Target:
    return Target(container_id="web", address=HOST, container=pb.Container(ports=[pb.Port(name="http", target=port)]))


async def ask(port: int, *, timeout_ms: int = 2_000, **how: object) -> Answer:
    probe = pb.Probe(timeout=timeout_ms, **how)  # type: ignore[arg-type]  # one of the four kinds
    return await prober().ask(target(port), probe)


def http(port: int, **more: object) -> pb.HttpProbe:
    return pb.HttpProbe(port=str(port), **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a port of its own. It ends when everybody was served."""
    async with asyncio.TaskGroup() as group:

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(_to_the_end(handler, reader, writer))

        server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
        async with server:
            yield server.sockets[0].getsockname()[1]


async def _to_the_end(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await handler(reader, writer)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def says(*chunks: bytes, asked: list[bytes] | None = None) -> Handler:
    """A server that reads a request's head, notes it, answers, and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head)
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()

    return handle


async def is_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """A server that takes everything and says nothing."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024):
            continue


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that nobody listens on, nor can begin to."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


@pytest.fixture(params=["fake", "real"])
def asked(request: pytest.FixtureRequest, closed: int) -> Callable[[str], AbstractAsyncContextManager[Answer]]:
    """What a prober makes of a server that is `well`, `silent` or `away`."""

    @contextlib.asynccontextmanager
    async def fake(how: str) -> AsyncIterator[Answer]:
        machine = FakeMachine(delay_s=9 if how == "silent" else 0)
        if how != "away":
            request = ContainerRequest(
                container_id="web", config={"linux": {}}, layers=(), log_max_size=1, log_max_files=1
            )
            machine.containers["web"] = FakeContainer(request=request, pid=7, started_at=0)
            machine.attached["web"] = Attachment(task_id="web", address=HOST)
        yield await FakeProber(machine).ask(target(80), pb.Probe(timeout=150, http=http(80)))

    @contextlib.asynccontextmanager
    async def real(how: str) -> AsyncIterator[Answer]:
        async with serving(says(OK) if how == "well" else is_silent) as port:
            yield await ask(port, timeout_ms=150, http=http(closed if how == "away" else port))

    return fake if request.param == "fake" else real


@pytest.mark.parametrize(
    ("how", "message"),
    [("well", ""), ("away", "connection refused"), ("silent", "no answer within 150ms")],
)
@bounded(20)
async def test_every_prober(
    asked: Callable[[str], AbstractAsyncContextManager[Answer]], how: str, message: str
) -> None:
    """The real one and that of the simulation: the same answers, in time, and never an exception."""
    async with asked(how) as answer:
        assert answer == Answer(good=not message, message=message)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([OK], ""),
        ([b"HTTP/1.0 204 No Content\n\n"], ""),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n"], ""),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", OK], ""),
        ([b"HTTP/1.1 2", b"00 OK\r\n", b"A: b\r\n", b"\r\n"], ""),
        ([b"HTTP/1.1 399 \r\n\r\n"], ""),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "status 400"),
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "status 503"),
        ([], "the connection was closed without an answer"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "the answer is not HTTP"),
        ([b"HTTP/1.1 fine\r\n\r\n"], "the answer is not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nA: b"], "the answer is not HTTP"),
        ([b"HTTP/1.1 200 " + b"x" * 100_000], "the answer is not HTTP"),
        ([b"HTTP/1.1 200 OK\r\n", *([b"A: b\r\n"] * 10_000), b"\r\n"], "the answer is not HTTP"),
    ],
)
@bounded(20)
async def test_http(chunks: list[bytes], message: str) -> None:
    """200 to 399 is good, a redirection is not followed; nothing that a server sends takes more than its bound."""
    async with serving(says(*chunks)) as port:
        assert await ask(port, http=http(port)) == Answer(good=not message, message=message)


@bounded(20)
async def test_http_sends_what_was_asked_for() -> None:
    """Path and query as written; headers replace those that we send anyway, whatever case they are in."""
    asked: list[bytes] = []
    async with serving(says(OK, asked=asked)) as port:
        probe = pb.HttpProbe(port="http", path="/health?deep=1", headers={"host": "shop.example", "X-Token": "s"})
        assert await ask(port, http=probe) == Answer(good=True)
    first, *headers = asked[0].decode().strip().split("\r\n")
    assert first == "GET /health?deep=1 HTTP/1.1"
    assert {"Host: shop.example", "X-Token: s", "Connection: close"} <= set(headers)
    assert sum(line.lower().startswith("host:") for line in headers) == 1


@bounded(20)
async def test_headers_smuggle_nothing_in() -> None:
    """A line break in a header would be another header, or another request."""
    asked: list[bytes] = []
    async with serving(says(OK, asked=asked)) as port:
        answer = await ask(port, http=http(port, headers={"A": "b\r\nC: d"}))
    assert (answer.good, asked) == (False, [])
    assert "'A' cannot be sent" in answer.message


@pytest.fixture
def own_certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server that has signed for itself."""
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout key -out cert"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True, timeout=20)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    return context


@bounded(20)
async def test_tls_takes_any_certificate(own_certificate: ssl.SSLContext) -> None:
    """A container's own certificate is nobody's business; one that speaks no TLS has not answered well."""
    async with serving(says(OK), tls=own_certificate) as port:
        assert await ask(port, http=http(port, tls=True)) == Answer(good=True)
    async with serving(says(OK, OK)) as port:
        answer = await ask(port, http=http(port, tls=True), timeout_ms=300)
        assert not answer.good


@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
@bounded(20)
async def test_nobody_listens(closed: int, kind: str) -> None:
    """Told at once, in the words of the system."""
    port = str(closed)
    how = {"http": pb.HttpProbe(port=port), "tcp": pb.TcpProbe(port=port), "grpc": pb.GrpcProbe(port=port)}
    assert await ask(closed, **{kind: how[kind]}) == Answer(good=False, message="connection refused")


@pytest.mark.parametrize("kind", ["http", "grpc"])
@bounded(20)
async def test_a_server_that_says_nothing(kind: str) -> None:
    """It has its time, and no more; a connection alone is an answer to TCP only."""
    async with serving(is_silent) as port:
        how = {"http": pb.HttpProbe(port=str(port)), "grpc": pb.GrpcProbe(port=str(port))}
        began = time.monotonic()
        answer = await ask(port, timeout_ms=200, **{kind: how[kind]})
        assert answer == Answer(good=False, message="no answer within 200ms")
        assert 0.19 < time.monotonic() - began < 1.5
        assert await ask(port, tcp=pb.TcpProbe(port="http")) == Answer(good=True)


@bounded(20)
async def test_an_address_that_does_not_answer() -> None:
    """A packet into nowhere (a listener with a full queue) is a bad answer after the time-out."""
    with socket.socket() as listener, contextlib.ExitStack() as others:
        listener.bind((HOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            client = others.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((HOST, port))
        answer = await ask(port, tcp=pb.TcpProbe(port=str(port)), timeout_ms=150)
        assert answer == Answer(good=False, message="no answer within 150ms")


@bounded(20)
async def test_a_port_that_has_no_such_name() -> None:
    """Said as it is, in case that a manifest came past all checks."""
    answer = await ask(80, tcp=pb.TcpProbe(port="metrics"))
    assert answer == Answer(good=False, message="the container has no port 'metrics'")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 0", ""),
        ("echo all is lost; echo more; exit 3", "exit code 3: all is lost"),
        ("kill -9 $$", "exit code 137"),
    ],
)
@REAL
@bounded(30)
async def test_exec(runtimes: RuntimeMaker, container: Container, command: str, message: str) -> None:
    """Exit code 0 is good; else the code, and the first line that was said."""
    async with runtimes() as runtime:
        await runtime.start(container("web"))
        probe = pb.Probe(timeout=5_000, exec=pb.ExecProbe(command=["sh", "-c", command]))
        assert await prober(runtime).ask(target(), probe) == Answer(good=not message, message=message)


@REAL
@bounded(30)
async def test_exec_is_bounded(runtimes: RuntimeMaker, container: Container) -> None:
    """A command that hangs is killed, one that floods is read and dropped, one that is not there is told."""
    async with runtimes() as runtime:
        await runtime.start(container("web"))

        async def run(*command: str, timeout_ms: int = 5_000) -> Answer:
            probe = pb.Probe(timeout=timeout_ms, exec=pb.ExecProbe(command=command))
            return await prober(runtime).ask(target(), probe)

        assert (await run("sleep", "987", timeout_ms=200)).message == "no answer within 200ms"
        look = "for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$each; echo; done 2>/dev/null | grep -q '^sleep 987'"
        await until_async(lambda: run("sh", "-c", f"! ({look})"), what="the command is killed")
        for timeout_ms in range(1, 30):
            await run("sleep", "987", timeout_ms=timeout_ms)
        await until_async(lambda: run("sh", "-c", f"! ({look})"), what="one that had no time to start is killed, too")
        assert (await run("sh", "-c", "head -c 2000000 /dev/zero | tr '\\0' x; exit 1")).message.startswith(
            "exit code 1"
        )
        assert "not" in (await run("/no/such")).message
        assert not (
            await prober(runtime).ask(
                Target(container_id="gone", address=HOST, container=pb.Container()),
                pb.Probe(timeout=500, exec=pb.ExecProbe(command=["true"])),
            )
        ).good


async def until_async(ask_again: Callable[[], Awaitable[Answer]], *, what: str) -> None:
    for _ in range(50):
        if (await ask_again()).good:
            return
    raise AssertionError(what)


@bounded(60)
async def test_a_thousand_probes_a_second_are_cheap() -> None:
    """By TCP: a fifth of a core (200 µs each), the server's own work included; and nothing is left of them."""
    listener = socket.create_server((HOST, 0), backlog=4096)
    port = listener.getsockname()[1]
    loop, count, one = asyncio.get_running_loop(), 3_000, prober()
    probe = pb.Probe(timeout=1_000, tcp=pb.TcpProbe(port=str(port)))

    def take() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()

    listener.setblocking(False)
    loop.add_reader(listener, take)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(count // 100):
        answers = await asyncio.gather(*(one.ask(target(port), probe) for _ in range(100)))
        assert all(answer.good for answer in answers)
    after = resource.getrusage(resource.RUSAGE_SELF)
    loop.remove_reader(listener)
    listener.close()
    cpu_us = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count * 1e6
    print(f"{cpu_us:.0f} µs a probe")
    await until(lambda: len(asyncio.all_tasks()) == 1, what="nothing is left")
    assert cpu_us < 400, "twice what is promised: this machine may be slow, but not everything may be"


@bounded(20)
async def test_a_task_of_ipv6_is_asked_like_any_other() -> None:
    """Its address stands in brackets where a port follows it."""
    heard = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.read(1000)).decode())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "::1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        one = Target(container_id="web", address="::1", container=pb.Container())
        assert (await prober().ask(one, pb.Probe(timeout=2_000, http=http(port)))).good
        assert f"Host: [::1]:{port}\r\n" in heard[0]
        assert (await prober().ask(one, pb.Probe(timeout=2_000, tcp=pb.TcpProbe(port=str(port))))).good
    refused = await prober().ask(one, pb.Probe(timeout=2_000, tcp=pb.TcpProbe(port=str(port))))
    assert (refused.good, refused.message) == (False, "connection refused")
