"""A control plane that says nothing: nobody waits for it in silence, or for ever."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import fake_control, orchctl, samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import ROOT

SERVER = """
import time
from tests.support import fake_control, samples
fake = fake_control.FakeControl()
fake.put(samples.service("hello"))
with fake_control.running(fake) as (_, address):
    print(address, flush=True)
    time.sleep(600)
"""


@contextmanager
def started(folder: Path, server: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        orchctl.command(*arguments),
        env=orchctl.environment(folder, server),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: "subprocess.Popen[str]", pattern: str) -> str:
    """The first line on standard error that fits."""
    assert process.stderr is not None
    guard = threading.Timer(orchctl.TIMEOUT_S, process.kill)
    guard.start()
    try:
        return next(line for line in process.stderr if re.search(pattern, line))
    finally:
        guard.cancel()


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "services"),
        ("get", "services", "-w"),
        ("scale", "hello=2"),
        ("logs", "-f", "hello"),
        ("exec", "t", "ls"),
    ],
    ids=" ".join,
)
def test_an_address_that_accepts_and_says_nothing_is_given_up(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = orchctl.run(orchctl.environment(tmp_path, address), *arguments)
    assert result.code == 1
    assert f"cannot reach the control plane at {address}" in result.err


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("Apply", ("apply", "-f", "hello.yaml")),
        ("Watch", ("get", "services", "-w")),
        ("Watch", ("apply", "-f", "hello.yaml")),
        ("Exec", ("exec", "hello-1", "ls")),
        ("CheckNetwork", ("network", "check")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_who_waits_for_an_answer_says_so(tmp_path: Path, call: str, arguments: tuple[str, ...]) -> None:
    """The server is there and answers pings, but not this call."""
    (tmp_path / "hello.yaml").write_text(samples.HELLO_MANIFEST)
    fake = FakeControl()
    fake.settles = False
    fake.silent.add(call)
    with fake_control.running(fake) as (_, address):
        said = [str(tmp_path / word) if word == "hello.yaml" else word for word in arguments]
        with started(tmp_path, address, *said) as process:
            began = time.monotonic()
            line = line_of(process, "no word")
            assert f"no word from the control plane at {address} to {call} for 5 s; still waiting" in line
            assert time.monotonic() - began >= 4
            assert process.poll() is None
        fake.speak()


def test_a_server_that_freezes_in_the_middle_of_a_watch_is_noticed(tmp_path: Path) -> None:
    """Its kernel goes on acknowledging what is sent; nobody answers the pings."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            with started(tmp_path, address, "get", "services", "-w") as process:
                assert process.stdout is not None
                next(line for line in process.stdout if line.startswith("hello"))
                server.send_signal(signal.SIGSTOP)
                assert "cannot reach the control plane" in line_of(process, "cannot reach")
                assert process.wait(orchctl.TIMEOUT_S) == 1
        finally:
            server.kill()
