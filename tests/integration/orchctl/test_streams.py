"""Logs and exec: streams that end well, and a terminal that is always given back."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from protos.orch.v1 import control_pb2 as control
from tests.support import fake_control, orchctl, samples
from tests.support.fake_control import FakeControl

TIME_NS = 1_700_000_000_000_000_000


def world() -> FakeControl:
    fake = FakeControl()
    fake.put(samples.service())
    fake.put(samples.task(1))
    return fake


@pytest.fixture
def fake() -> FakeControl:
    return world()


@pytest.fixture
def server(fake: FakeControl) -> Iterator[str]:
    with fake_control.running(fake) as (_, address):
        yield address


@pytest.fixture
def environ(server: str, tmp_path: Path) -> dict[str, str]:
    return orchctl.environment(tmp_path, server)


def log_line(text: str, task: str = "hello-1-aaaaaaaa", *, time_ns: int = TIME_NS) -> control.LogLine:
    return control.LogLine(task=task, time_ns=time_ns, text=text.encode())


class Terminal:
    """A terminal with `orchctl` in it."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            # So that keys and sizes become signals, as for a program that a shell has started.
            ["setsid", "--ctty", *orchctl.command(*arguments)],
            env={**environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, pattern: bytes) -> None:
        """Until this was shown since the last call."""
        deadline = time.monotonic() + orchctl.TIMEOUT_S
        while not (match := re.search(pattern, self.shown)):
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"not shown: {pattern!r}; at last: {self.shown[-500:]!r}"
            if select.select([self._ours], [], [], left_s)[0]:
                self.shown += os.read(self._ours, 4096)
        self.shown = self.shown[match.end() :]

    def rest(self) -> bytes:
        """What else was shown up to now."""
        while select.select([self._ours], [], [], 0)[0]:
            self.shown += os.read(self._ours, 4096)
        return self.shown

    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self._theirs))

    def wait(self) -> int:
        return self.process.wait(orchctl.TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(orchctl.TIMEOUT_S)
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(environ: dict[str, str], *arguments: str) -> Iterator[Terminal]:
    opened = Terminal(environ, *arguments)
    try:
        yield opened
    finally:
        opened.close()


# -------------------------------------------------------------------------------------------------------- logs


def test_a_services_lines_carry_the_tasks_name(fake: FakeControl, environ: dict[str, str]) -> None:
    fake.log_batches = [control.LogsResponse(lines=[log_line("one"), log_line("two", "hello-2-bbbbbbbb")])]
    result = orchctl.run(environ, "logs", "hello")
    assert result.out == "hello-1-aaaaaaaa | one\nhello-2-bbbbbbbb | two\n"
    assert orchctl.run(environ, "logs", "hello", "--no-prefix").out == "one\ntwo\n"


def test_a_tasks_lines_stand_alone_and_notices_apart(fake: FakeControl, environ: dict[str, str]) -> None:
    fake.log_batches = [control.LogsResponse(lines=[log_line("one")], notice="node n3 cannot be reached")]
    result = orchctl.run(environ, "logs", "hello-1-aaaaaaaa")
    assert (result.code, result.out, result.err) == (0, "one\n", "node n3 cannot be reached\n")
    (request,) = fake.asked(control.LogsRequest)
    assert (request.task, request.service, request.tail, request.follow) == ("hello-1-aaaaaaaa", "", -1, False)


def test_what_is_asked_of_the_logs_arrives(fake: FakeControl, environ: dict[str, str]) -> None:
    orchctl.run(environ, "logs", "service/hello", "--tail", "5", "--since", "2026-01-31T12:00:00Z")
    (request,) = fake.asked(control.LogsRequest)
    assert (request.service, request.tail, request.since) == ("hello", 5, 1_769_860_800_000)


def test_a_terminal_is_safe_from_what_a_container_prints(fake: FakeControl, environ: dict[str, str]) -> None:
    fake.log_batches = [control.LogsResponse(lines=[log_line("\x1b[31mred\x1b[0m \x1b]0;title\x07 end")])]
    with terminal(environ, "logs", "task/hello-1-aaaaaaaa") as shown:
        shown.wait_for(rb"\x1b\[31mred\x1b\[0m \\x1b\]0;title\\x07 end")
        assert shown.wait() == 0


def test_the_leader_is_asked_when_only_it_knows(fake: FakeControl, environ: dict[str, str]) -> None:
    leader = world()
    leader.log_batches = [control.LogsResponse(lines=[log_line("from the leader")])]
    with fake_control.running(leader) as (_, address):
        fake.leader = address
        assert orchctl.run(environ, "logs", "hello-1-aaaaaaaa").out == "from the leader\n"
        assert orchctl.run(environ, "exec", "hello", "--", "true").out == "true\n"
    fake.leader = fake_control_address = "127.0.0.1:1"
    result = orchctl.run(environ, "logs", "hello-1-aaaaaaaa")
    assert result.code == 1
    assert f"cannot reach the control plane at {fake_control_address}" in result.err


def test_a_follow_goes_on_after_the_control_plane_was_away(fake: FakeControl, environ: dict[str, str]) -> None:
    """No line twice, none lost."""
    first = control.LogsResponse(lines=[log_line("one"), log_line("two", time_ns=TIME_NS + 1)])
    again = control.LogsResponse(lines=[log_line("two", time_ns=TIME_NS + 1), log_line("three", time_ns=TIME_NS + 2)])
    answers = iter([[first], [again]])

    def logs(request: control.LogsRequest, context: grpc.ServicerContext) -> Iterator[control.LogsResponse]:
        fake.requests.append(request)
        answer = next(answers)
        yield from answer
        if answer == [first]:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    fake.Logs = logs  # type: ignore[method-assign]  # one that breaks
    with fake_control.running(fake) as (_, address):
        result = orchctl.run({**environ, "ORCH_SERVER": address}, "logs", "-f", "task/hello-1-aaaaaaaa")
    assert result.out == "one\ntwo\nthree\n"
    assert "going away; trying again" in result.err
    assert [request.since for request in fake.asked(control.LogsRequest)] == [0, TIME_NS // 1_000_000]


def test_ctrl_c_ends_a_follow_quietly(fake: FakeControl, environ: dict[str, str]) -> None:
    left = threading.Event()

    def logs(request: control.LogsRequest, context: grpc.ServicerContext) -> Iterator[control.LogsResponse]:
        fake.requests.append(request)
        context.add_callback(left.set)
        yield control.LogsResponse(lines=[log_line("one")])
        assert left.wait(orchctl.TIMEOUT_S)

    fake.Logs = logs  # type: ignore[method-assign]  # one that goes on
    with fake_control.running(fake) as (_, address):
        with terminal({**environ, "ORCH_SERVER": address}, "logs", "-f", "task/hello-1-aaaaaaaa") as shown:
            shown.wait_for(rb"one\r\n")
            shown.type(b"\x03")
            assert shown.wait() == 130
            assert b"orchctl" not in shown.rest()
        assert left.wait(orchctl.TIMEOUT_S), "the server was not told"


# -------------------------------------------------------------------------------------------------------- exec


def test_a_command_gets_its_words_and_gives_its_output(fake: FakeControl, environ: dict[str, str]) -> None:
    result = orchctl.run(environ, "exec", "-e", "A=b", "-w", "/tmp", "-u", "1:1", "hello", "--", "ls", "-l", "--", "x")
    assert (result.code, result.out, result.err) == (0, "ls -l -- x\n", "")
    sent = next(each for each in fake.starts if each.target == "hello")
    assert (dict(sent.env), sent.working_dir, sent.user, sent.tty, sent.stdin) == (
        {"A": "b"},
        "/tmp",
        "1:1",
        False,
        False,
    )


@pytest.mark.parametrize("size_bytes", [0, 5, 1_000_000])
def test_input_is_passed_on_to_its_end(environ: dict[str, str], size_bytes: int) -> None:
    data = b"x" * size_bytes
    result = orchctl.run(environ, "exec", "-i", "hello", "--", "cat", stdin=data)
    assert (result.code, result.out) == (0, "cat\n" + data.decode())


def test_input_may_be_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    """Files cannot be waited for as pipes are."""
    (tmp_path / "input").write_bytes(b"from a file")
    with (tmp_path / "input").open("rb") as file:
        done = subprocess.run(
            orchctl.command("exec", "-i", "hello", "cat"),
            env=environ,
            stdin=file,
            capture_output=True,
            timeout=orchctl.TIMEOUT_S,
            check=True,
        )
    assert done.stdout == b"cat\nfrom a file"


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (3, 3), (137, 137), (127, 127)])
def test_the_exit_code_is_the_commands(fake: FakeControl, environ: dict[str, str], code: int, seen: int) -> None:
    fake.exec_answer = lambda _requests: iter(
        [
            control.ExecResponse(started="hello-1-aaaaaaaa"),
            control.ExecResponse(stdout=b"out"),
            control.ExecResponse(stderr=b"err"),
            control.ExecResponse(exit_code=code),
        ]
    )
    result = orchctl.run(environ, "exec", "hello", "x")
    assert (result.code, result.out, result.err) == (seen, "out", "err")


def test_a_command_that_ends_before_its_input_keeps_its_exit_code(fake: FakeControl, environ: dict[str, str]) -> None:
    """As `head` does: input is still on its way when the command has ended."""

    def answer(requests: Iterator[control.ExecRequest]) -> Iterator[control.ExecResponse]:
        next(requests)
        yield control.ExecResponse(started="hello-1-aaaaaaaa")
        next(requests)
        yield control.ExecResponse(stdout=b"enough")
        yield control.ExecResponse(exit_code=3)

    fake.exec_answer = answer
    for _ in range(3):
        result = orchctl.run(environ, "exec", "-i", "hello", "--", "head", stdin=b"x" * 20_000_000)
        assert (result.code, result.out, result.err) == (3, "enough", "")


def test_a_stream_that_ends_before_the_command_is_a_failure(fake: FakeControl, environ: dict[str, str]) -> None:
    fake.exec_answer = lambda _requests: iter([control.ExecResponse(started="hello-1-aaaaaaaa")])
    result = orchctl.run(environ, "exec", "-i", "hello", "x")
    assert result.code == 1
    assert "ended the stream before the command ended" in result.err


def test_a_signal_is_passed_on(fake: FakeControl, environ: dict[str, str]) -> None:
    """The command decides what Ctrl-C means, as if it ran here."""

    def answer(requests: Iterator[control.ExecRequest]) -> Iterator[control.ExecResponse]:
        next(requests)
        yield control.ExecResponse(started="hello-1-aaaaaaaa")
        yield control.ExecResponse(stdout=b"running\n")
        yield control.ExecResponse(exit_code=100 + next(requests).signal)

    fake.exec_answer = answer
    process = subprocess.Popen(
        orchctl.command("exec", "hello", "x"), env=environ, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(orchctl.TIMEOUT_S) == 100 + signal.SIGINT


def shell(requests: Iterator[control.ExecRequest]) -> Iterator[control.ExecResponse]:
    """Tells the size and the keys that arrive; `q` ends it."""
    start = next(requests).start
    yield control.ExecResponse(started="hello-1-aaaaaaaa")
    yield control.ExecResponse(stdout=f"size {start.size.rows}x{start.size.columns} {start.env['TERM']}\r\n".encode())
    for request in requests:
        if request.HasField("resize"):
            yield control.ExecResponse(stdout=f"size {request.resize.rows}x{request.resize.columns}\r\n".encode())
        elif request.stdin == b"q":
            yield control.ExecResponse(exit_code=7)
            return
        elif request.stdin:
            yield control.ExecResponse(stdout=f"key {request.stdin.hex()}\r\n".encode())


def test_a_terminal_passes_every_key_and_its_size_and_is_given_back(fake: FakeControl, environ: dict[str, str]) -> None:
    fake.exec_answer = shell
    with terminal(environ, "exec", "-it", "hello", "--", "sh") as shown:
        shown.wait_for(rb"size 24x80 xterm\r\n")
        shown.type(b"\x03")
        shown.wait_for(rb"key 03\r\n")
        shown.resize(50, 132)
        shown.wait_for(rb"size 50x132\r\n")
        assert shown.attributes() != shown.before
        shown.type(b"q")
        assert shown.wait() == 7
        assert shown.attributes() == shown.before


def test_a_broken_stream_gives_the_terminal_back(fake: FakeControl, environ: dict[str, str]) -> None:
    def answer(requests: Iterator[control.ExecRequest]) -> Iterator[control.ExecResponse]:
        next(requests)
        yield control.ExecResponse(started="hello-1-aaaaaaaa")
        yield control.ExecResponse(stdout=b"hello\r\n")
        next(requests)

    fake.exec_answer = answer
    with terminal(environ, "exec", "-it", "hello", "--", "sh") as shown:
        shown.wait_for(rb"hello\r\n")
        shown.type(b"x")
        shown.wait_for(rb"ended the stream before the command ended\r\n")
        assert shown.wait() == 1
        assert shown.attributes() == shown.before


# ----------------------------------------------------------------------------------------------- live progress


def test_progress_is_drawn_in_place_in_a_terminal(fake: FakeControl, environ: dict[str, str], tmp_path: Path) -> None:
    fake.settles = False
    (tmp_path / "web.yaml").write_text(
        "kind: Service\nmeta: {name: web}\nspec: {replicas: 2, template: {container: {image: web}}}\n"
    )
    with terminal(environ, "apply", "-f", str(tmp_path / "web.yaml")) as shown:
        shown.wait_for(f"… service/web  {'░' * 20}  waiting for the leader".encode())
        service = samples.service("web", asked=2, ready=2)
        service.meta.id = "id1"
        fake.put(service)
        shown.wait_for(f"\x1b\\[1F\x1b\\[J✓ service/web  {'█' * 20}  2 of 2 ready\r\n".encode())
        assert shown.wait() == 0
