"""What the leader asks a node for beside its tasks: the output of a container, commands run in it, what it has changed,
what the node reaches, and what it uses.

Two rules: the agent opens each stream itself, and says on it why something cannot be had; and a stream's end lets go
of whatever was opened for it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent import ports
from agent.errors import AgentError, StartFailed
from protos import containers, running
from protos.link import Link, LinkLost
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()

StreamLink = Link[dpb.StreamFrame, dpb.StreamFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Who knows what the leader may want to know of the machine."""

    checks: ports.Checks
    meter: ports.Meter
    doctor: ports.Doctor


class Streams:
    """Serves `OpenStream` requests, each in a task of the session."""

    def __init__(
        self,
        *,
        connector: ports.Connector,
        runtime: ports.Runtime,
        logs: ports.Logs,
        answers: Answers,
        commits: ports.Commits,
        over: Callable[[str], "asyncio.Future[None]"],
        now_ms: Callable[[], int],
    ) -> None:
        """`over` tells when a task has ended for good, and raises NoSuchTask."""
        self._over = over
        self._connector = connector
        self._runtime = runtime
        self._logs = logs
        self._answers = answers
        self._commits = commits
        self._now_ms = now_ms

    async def serve(self, request: dpb.OpenStream, session_id: str) -> None:
        """Open the stream and serve it until it ends. Never raises: a stream's trouble is not the session's."""
        try:
            link = await self._connector.open_stream()
        except LinkLost as lost:
            log.info("a stream could not be opened", why=str(lost))
            return
        try:
            opened = dpb.StreamOpened(session_id=session_id, stream_id=request.stream_id)
            await link.send(dpb.StreamFrame(open=opened))
            await self._answer(link, request)
        except LinkLost as lost:
            log.debug("a stream has ended early", why=str(lost))
        except Exception:  # one stream's trouble must not end the session
            log.exception("a stream failed in an unexpected way", stream=request.stream_id)
        finally:
            await link.close("the stream has been served")

    async def _answer(self, link: StreamLink, request: dpb.OpenStream) -> None:
        try:
            match request.WhichOneof("request"):
                case "logs":
                    await self._serve_logs(link, request.logs)
                case "exec":
                    await self._serve_exec(link, request.exec)
                case "network_check":
                    await self._serve_check(link, request.network_check)
                case "commit":
                    await self._serve_commit(link, request.commit)
                case "usage":
                    counters = await self._answers.meter.read(request.usage)
                    await link.send(dpb.StreamFrame(counters=counters))
                case "diagnosis":
                    await self._serve_diagnosis(link)
                case unknown:
                    await _refuse(link, f"this agent does not know how to serve {unknown}")
        except StartFailed as error:
            stderr = cpb.ExecResponse(stderr=f"{error.message}\n".encode())
            await link.send(dpb.StreamFrame(output=stderr))
            await link.send(dpb.StreamFrame(output=cpb.ExecResponse(exit_code=error.exit_code)))
        except AgentError as error:
            await _refuse(link, error.message)

    async def _serve_logs(self, link: StreamLink, request: dpb.TaskLogsRequest) -> None:
        """Lines until there are no more, or until the other side does not want any more."""
        over = self._over(request.task_id)
        lines = self._logs.read(
            containers.identity(request.task_id, request.container),
            tail=request.tail,
            since_ms=request.since,
            until=over if request.follow else None,
        )

        async def send() -> None:
            async with contextlib.aclosing(lines):
                async for batch in lines:
                    await link.send(dpb.StreamFrame(logs=cpb.LogsResponse(lines=batch)))
            await link.send(dpb.StreamFrame(end=True))

        # Nothing is expected from the other side: only that it hangs up.
        await running.beside(send(), _expect_nothing(link), expected=(LinkLost, AgentError))

    async def _serve_exec(self, link: StreamLink, request: dpb.TaskExecRequest) -> None:
        container_id = containers.identity(request.task_id, request.start.container)
        command = await self._runtime.execute(container_id, request.start)

        async def send() -> None:
            await link.send(dpb.StreamFrame(output=cpb.ExecResponse(started=request.task_id)))
            async for stream, data in command.output():
                await link.send(dpb.StreamFrame(output=_output(stream, data)))
            code = await command.exit_code()
            await link.send(dpb.StreamFrame(output=cpb.ExecResponse(exit_code=code)))

        try:
            await running.beside(send(), _feed(link, command), expected=(LinkLost, AgentError))
        finally:
            await command.close()

    async def _serve_check(self, link: StreamLink, request: dpb.NetworkCheckRequest) -> None:
        async def send() -> None:
            findings = await self._answers.checks.run(request)
            await link.send(dpb.StreamFrame(findings=cpb.CheckNetworkResponse(findings=findings)))
            await link.send(dpb.StreamFrame(end=True))

        await running.beside(send(), _expect_nothing(link), expected=(LinkLost, AgentError))

    async def _serve_diagnosis(self, link: StreamLink) -> None:
        """The clock first: who asks knows how long that took, and the rest takes a second or two."""
        await link.send(dpb.StreamFrame(diagnosis=dpb.NodeDiagnosis(now=self._now_ms())))
        found = await self._answers.doctor.examine()
        await link.send(dpb.StreamFrame(diagnosis=dpb.NodeDiagnosis(findings=found)))
        await link.send(dpb.StreamFrame(end=True))

    async def _serve_commit(self, link: StreamLink, request: dpb.TaskCommitRequest) -> None:
        """The offer, then the blobs that the other side wishes. When it hangs up, nothing more is read."""
        wished: asyncio.Future[cpb.CommitWish] = asyncio.get_running_loop().create_future()

        async def send() -> None:
            async with self._commits.taken(request) as taken:
                await _send_commit(link, cpb.CommitResponse(offer=taken.offer))
                for digest in (await wished).digests:
                    await _send_commit(link, cpb.CommitResponse(blob=digest))
                    async for chunk in taken.read(digest):
                        await _send_commit(link, cpb.CommitResponse(chunk=chunk))
                await _send_commit(link, cpb.CommitResponse(end=True))

        async def listen() -> None:
            wished.set_result((await link.receive()).wish)
            await _expect_nothing(link)

        await running.beside(send(), listen(), expected=(LinkLost, AgentError))


async def _send_commit(link: StreamLink, part: cpb.CommitResponse) -> None:
    await link.send(dpb.StreamFrame(commit=part))


async def _feed(link: StreamLink, command: ports.Exec) -> None:
    """What the other side sends, into the command."""
    while True:
        frame = await link.receive()
        message = frame.input
        match message.WhichOneof("message"):
            case "stdin":
                await command.write(message.stdin)
            case "stdin_closed":
                await command.close_stdin()
            case "resize":
                await command.resize(message.resize.rows, message.resize.columns)
            case "signal":
                await command.signal(message.signal)
            case _:
                raise LinkLost("the other side sent something that is no input")


async def _expect_nothing(link: StreamLink) -> None:
    while True:
        await link.receive()


def _output(stream: cpb.LogStream.ValueType, data: bytes) -> cpb.ExecResponse:
    if stream == cpb.LOG_STREAM_STDERR:
        return cpb.ExecResponse(stderr=data)
    return cpb.ExecResponse(stdout=data)


async def _refuse(link: StreamLink, why: str) -> None:
    await link.send(dpb.StreamFrame(error=cpb.Error(message=why)))
