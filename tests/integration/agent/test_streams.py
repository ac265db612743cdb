"""Output and commands of real containers, through the agent to the leader."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator

import pytest

from images.store import ImageStore
from protos import states
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.agent.conftest import Node, led
from tests.support.aio import bounded, until
from tests.support.fake_leader import FakeLeader, input_frame, task, template

pytestmark = pytest.mark.root

Frames = AsyncIterator[dpb.StreamFrame]
Input = asyncio.Queue[dpb.StreamFrame | None]
_ids = itertools.count()


async def logs(
    leader: FakeLeader, name: str, *, tail: int = -1, follow: bool = False, since: int = 0
) -> tuple[Frames, Input]:
    request = dpb.TaskLogsRequest(task_id=name, tail=tail, follow=follow, since=since)
    return await leader.open_stream(dpb.OpenStream(stream_id=f"l{next(_ids)}", logs=request))


async def execute(leader: FakeLeader, name: str, *command: str, **more: object) -> tuple[Frames, Input]:
    start = cpb.ExecStart(command=command, **more)  # type: ignore[arg-type]  # field names are the caller's
    request = dpb.TaskExecRequest(task_id=name, start=start)
    return await leader.open_stream(dpb.OpenStream(stream_id=f"e{next(_ids)}", exec=request))


async def lines_of(frames: Frames) -> list[str]:
    """Every line, until the agent says that there are no more."""
    found: list[str] = []
    async for frame in frames:
        if frame.HasField("end"):
            return found
        assert frame.HasField("logs"), frame
        found += [line.text.decode() for line in frame.logs.lines]
    raise AssertionError("the stream was cut")


async def result_of(frames: Frames) -> tuple[str, str, int]:
    """stdout, stderr and the exit code."""
    out, err = bytearray(), bytearray()
    async for frame in frames:
        assert frame.HasField("output"), frame
        out += frame.output.stdout
        err += frame.output.stderr
        if frame.output.HasField("exit_code"):
            return out.decode(), err.decode(), frame.output.exit_code
    raise AssertionError(f"ended without an exit code; {out[-200:]!r} {err[-200:]!r}")


@bounded(60)
async def test_logs_of_what_was_written(node: Node, store: ImageStore) -> None:
    """All of it, the last lines of it, or what was written since a moment; with times, streams and long lines."""
    async with led(node, store) as leader:
        script = (
            'for n in 1 2 3 4; do echo "line $n"; done; echo oops >&2; head -c 20000 /dev/zero | tr "\\0" x; sleep 100'
        )
        await leader.assign(task("web-1-a"), template=template("sh", "-c", script))
        status = await leader.running("web-1-a")
        log = node.state / "tasks/web-1-a/log"
        # Two pipes: in what order their lines come is not said.
        await until(lambda: log.stat().st_size > 16_000 and "oops" in log.read_text(), what="everything is written")
        frames, _ = await logs(leader, "web-1-a")
        first = await anext(frames)
        lines = list(first.logs.lines)
        written = [line.text for line in lines if line.stream == cpb.LOG_STREAM_STDOUT]
        assert written[:4] == [b"line 1", b"line 2", b"line 3", b"line 4"]
        assert [line.text for line in lines if line.stream == cpb.LOG_STREAM_STDERR] == [b"oops"]
        assert [len(line.text) for line in lines if line.partial] == [16_384]
        assert abs(lines[0].time_ns // 1_000_000 - status.started_at) < 5_000
        assert (await anext(frames)).HasField("end")
        frames, _ = await logs(leader, "web-1-a", tail=1)
        assert await lines_of(frames) == [lines[-1].text.decode()]
        frames, _ = await logs(leader, "web-1-a", since=status.started_at + 3_600_000)
        assert await lines_of(frames) == []


@bounded(60)
async def test_followed_logs_survive_rotation_restart_and_end(node: Node, store: ImageStore) -> None:
    """No line is lost or repeated, through rotations and a restart in place; the stream ends with the task."""
    async with led(node, store) as leader:
        script = 'n=0; while [ $n -lt 3000 ]; do echo "$n some words to fill the file"; n=$((n+1)); done; exit 3'
        made = template("sh", "-c", script)
        made.restart.attempts = 1
        made.container.logs.max_size, made.container.logs.max_files = 16_384, 100
        await leader.assign(task("web-1-a"), template=made)
        await until((node.state / "tasks/web-1-a/log").exists, what="the log is there")
        frames, _ = await logs(leader, "web-1-a", follow=True)
        numbers = [int(line.split()[0]) for line in await lines_of(frames)]
        assert numbers == [*range(3000), *range(3000)]
        assert leader.statuses["web-1-a"].state == states.FAILED or await leader.until(
            "web-1-a", lambda now: now.state == states.FAILED, what="it fails"
        )
        assert len(list((node.state / "tasks/web-1-a").glob("log.*"))) > 10


@bounded(60)
async def test_whoever_hangs_up_is_not_served_on(node: Node, store: ImageStore) -> None:
    """The agent lets go of the log when nobody reads it any more; an unknown task is refused in words."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", "echo hello; sleep 100"))
        await leader.running("web-1-a")
        frames, hang_up = await logs(leader, "web-1-a", follow=True)
        assert [line.text for line in (await anext(frames)).logs.lines] == [b"hello"]
        assert inotify_instances(node) == 1
        await hang_up.put(None)
        await until(lambda: inotify_instances(node) == 0, what="the agent lets go of the log")
        frames, _ = await logs(leader, "nobody")
        assert "nobody" in (await anext(frames)).error.message


@bounded(60)
async def test_a_command_without_a_terminal(node: Node, store: ImageStore) -> None:
    """Input, both outputs and the exit code; in the container's own environment, folder and user."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sleep", "100"))
        await leader.running("web-1-a")
        frames, send = await execute(leader, "web-1-a", "sh", "-c", "cat; echo err >&2; exit 5", stdin=True)
        assert (await anext(frames)).output.started == "web-1-a"
        await send.put(input_frame(stdin=b"some "))
        await send.put(input_frame(stdin=b"words"))
        await send.put(input_frame(stdin_closed=True))
        assert await result_of(frames) == ("some words", "err\n", 5)
        show = "echo $ORCH_TASK $COLOUR; pwd; id -u"
        more = {"env": {"COLOUR": "red"}, "working_dir": "/www", "user": "7"}
        frames, _ = await execute(leader, "web-1-a", "sh", "-c", show, **more)
        assert await result_of(frames) == ("web-1-a red\n/www\n7\n", "", 0)
        frames, _ = await execute(leader, "web-1-a", "/no/such/thing")
        out, err, code = await result_of(frames)
        assert (out, code) == ("", 127)
        assert "/no/such/thing" in err


@bounded(60)
async def test_a_command_with_a_terminal(node: Node, store: ImageStore) -> None:
    """It has a terminal of the size that was asked for, and hears of a new size and of signals."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sleep", "100"))
        await leader.running("web-1-a")
        script = 'tty; stty size; read x; stty size; trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done'
        size = cpb.TerminalSize(rows=30, columns=100)
        frames, send = await execute(leader, "web-1-a", "sh", "-c", script, tty=True, stdin=True, size=size)
        await expect(frames, b"30 100")
        await send.put(input_frame(resize=cpb.TerminalSize(rows=40, columns=120)))
        await send.put(input_frame(stdin=b"go\n"))
        await expect(frames, b"40 120", b"ready")
        await send.put(input_frame(signal=signal.SIGTERM))
        assert (await result_of(frames))[2] == 9


@bounded(60)
async def test_much_output_is_passed_on_whole(node: Node, store: ImageStore) -> None:
    """Twenty million bytes arrive, in order, and the agent does not hold them all."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sleep", "100"))
        await leader.running("web-1-a")
        frames, _ = await execute(leader, "web-1-a", "sh", "-c", "head -c 20000000 /dev/zero; echo end")
        out, _, code = await result_of(frames)
        assert (len(out), out[-4:], code) == (20_000_004, "end\n", 0)


@bounded(60)
async def test_a_command_ends_with_its_container(node: Node, store: ImageStore) -> None:
    """Told to stop, the task takes its commands along."""
    async with led(node, store) as leader:
        made = template("sleep", "100")
        made.stop_grace_period = 100
        await leader.assign(task("web-1-a"), template=made)
        await leader.running("web-1-a")
        frames, _ = await execute(leader, "web-1-a", "sleep", "100")
        await anext(frames)
        await leader.assign(task("web-1-a", desired=pb.DESIRED_STATE_SHUTDOWN))
        assert (await result_of(frames))[2] == 137


async def expect(frames: Frames, *words: bytes) -> None:
    """Read until all these words have come, in whatever pieces."""
    seen = b""
    while not all(word in seen for word in words):
        seen += (await anext(frames)).output.stdout


def inotify_instances(node: Node) -> int:
    """How many inotify descriptors the agent has open."""
    assert node.agent is not None, "not running"
    return node.run("sh", "-c", f"ls -l /proc/{node.agent.pid}/fd").count("inotify")


@bounded(60)
async def test_a_node_tells_what_is_used(node: Node, store: ImageStore) -> None:
    """Of the machine and of containers that run; a busy one has used more at the second look."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", "while :; do :; done"))
        await leader.running("web-1-a")
        before = await measured(leader)
        await until_used(leader, before.usage.tasks[0].cpu_ns + 50_000_000)
        after = await measured(leader)
        (used,) = after.usage.tasks
        assert (used.task_id, used.processes) == ("web-1-a", 1)
        assert 0 < used.memory < after.usage.memory_total
        assert used.cpu_ns - before.usage.tasks[0].cpu_ns >= 50_000_000
        assert after.usage.cpu_ns > before.usage.cpu_ns
        assert after.usage.at_ns > before.usage.at_ns
        assert list(after.traffic) == [], "nobody has asked for a service yet"


async def measured(leader: FakeLeader) -> dpb.NodeCounters:
    request = dpb.NodeUsageRequest(tasks=True, services=True)
    frames, _ = await leader.open_stream(dpb.OpenStream(stream_id=f"u{next(_ids)}", usage=request))
    return (await anext(frames)).counters


async def until_used(leader: FakeLeader, cpu_ns: int) -> None:
    """As much processor time was used by the only task."""
    async with asyncio.timeout(20):
        while (await measured(leader)).usage.tasks[0].cpu_ns < cpu_ns:
            continue
