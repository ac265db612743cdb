"""SCMP_ACT_NOTIFY: an agent outside answers for calls inside."""

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, errors, state
from tests.integration.runtime.conftest import Box, wait_until
from tests.support import probe

pytestmark = pytest.mark.root

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND (seccomp_unotify(2))
_GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE

Answer = tuple[int, int, int]
"""Value, negative errno, flags."""


class Agent:
    """Listens, takes each listener that it is sent, and answers its questions; `told` is what it was told."""

    def __init__(self, path: Path, answer: Callable[[int], Answer]) -> None:
        self.told: list[dict[str, Any]] = []
        self.asked: list[tuple[int, int]] = []  # pid and number of the call
        self.trailing: list[bytes] = []
        self._answer = answer
        self._listeners: list[int] = []
        self._threads: list[threading.Thread] = []
        self._stop = os.eventfd(0)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._start(self._accept)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed: the test is over
                return
            with connection:
                text, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                self.trailing.append(connection.recv(1))
            self.told.append(json.loads(text))
            self._listeners += fds
            for fd in fds:
                self._start(lambda fd=fd: self._serve(fd))  # type: ignore[misc]

    def _serve(self, listener: int) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        with contextlib.suppress(FileNotFoundError):  # the process was killed between two steps
            while poll.poll() == [(listener, select.POLLIN)]:  # else the test has ended, or the last process
                question = bytearray(80)
                fcntl.ioctl(listener, _RECEIVE, question)
                number, pid, _, call = struct.unpack_from("QIIi", question)
                self.asked.append((pid, call))
                value, error, flags = self._answer(call)
                fcntl.ioctl(listener, _SEND, struct.pack("QqiI", number, value, error, flags))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "the agent still waits for a process"
        for fd in (self._stop, *self._listeners):
            os.close(fd)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Callable[[Callable[[int], Answer]], tuple[Agent, str]]]:
    """Agents that end with the test; each with the path that it listens at."""
    made: list[Agent] = []

    def make(answer: Callable[[int], Answer]) -> tuple[Agent, str]:
        path = tmp_path / f"agent-{len(made)}.sock"
        made.append(Agent(path, answer))
        return made[-1], str(path)

    yield make
    for agent in made:
        agent.close()


Agents = Callable[[Callable[[int], Answer]], tuple[Agent, str]]


def go_on(_: int) -> Answer:
    return 0, 0, _GO_ON


def asking(path: str, *names: str) -> dict[str, Any]:
    """A profile that asks about these calls."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "for the agent",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("own_users", [False, True])
def test_an_agent_answers_for_the_container(
    box: Box, agents: Agents, *, no_new_privileges: bool, own_users: bool
) -> None:
    """What it says is what the call returns, and nothing was done. It knows whom it speaks for."""
    agent, path = agents(lambda _: (0, -errno.EXDEV, 0))
    config = box.config("a", "sh", "-c", "mkdir /made; echo $?; ls -d /made; exec sleep 100")
    config["linux"]["seccomp"] = asking(path, "mkdir", "mkdirat")
    config["process"]["noNewPrivileges"] = no_new_privileges
    if own_users:
        defaults.give_user_namespace(config, first_id=7_000_000)
    config["annotations"] = {"org.example.why": "test"}
    made = box.create("a", config, bundle="/bundle")
    wait_until(lambda: "ls:" in box.output("a"), "the shell has looked")
    assert "mkdir: can't create directory '/made': Invalid cross-device link" in box.output("a")
    assert agent.told == [
        {
            "ociVersion": "1.2.0",
            "fds": ["seccompFd"],
            "pid": made["pid"],
            "metadata": "for the agent",
            "state": {
                "ociVersion": "1.2.0",
                "id": "a",
                "status": "creating",
                "pid": made["pid"],
                "bundle": "/bundle",
                "annotations": {"org.example.why": "test"},
            },
        }
    ]
    assert agent.trailing == [b""]  # one state a connection
    assert [call for _, call in agent.asked] == [probe.number("mkdir")]


def test_exec_has_an_agent_too(box: Box, agents: Agents) -> None:
    """With a connection, a listener and a pid of its own, in the host's numbers; nobody else is seen inside."""
    agent, path = agents(lambda _: (0, 0, 0))
    config = box.config("a", "sleep", "100")
    config["linux"]["seccomp"] = asking(path, "mkdir", "mkdirat")
    made = box.create("a", config)
    with box.monitor("a") as monitor:
        for _ in range(5):
            number, pid, _ = monitor.execute({"args": ["sh", "-c", "mkdir /made && ! ls -d /made && [ ! -e /proc/3 ]"]})
            assert monitor.wait_exec(number, 20) == 0
            assert agent.told[-1]["pid"] == pid
            assert agent.told[-1]["state"] | {"annotations": {}} == {
                "ociVersion": "1.2.0",
                "id": "a",
                "status": "running",
                "pid": made["pid"],
                "bundle": "",
                "annotations": {},
            }
    assert len(agent.told) == 6
    children = Path(f"/proc/{made['monitor_pid']}/task/{made['monitor_pid']}/children").read_text().split()
    assert children == [str(made["pid"])], "the couriers are gone and reaped"


def test_even_the_exec_may_be_asked_about(box: Box, agents: Agents) -> None:
    """The runtime needs no call to hand the listener over, so a profile may ask about every call there is."""
    agent, path = agents(go_on)
    for index in range(10):
        config = box.config(f"a{index}", "echo", "hello")
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_NOTIFY",
            "listenerPath": path,
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        }
        made = box.create(f"a{index}", config)
        assert box.ended(f"a{index}").exit_code == 0
        assert box.output(f"a{index}") == "hello"
        mine = [call for pid, call in agent.asked if pid == made["pid"]]
        assert mine[0] == probe.number("execve")
        assert mine[-1] == probe.number("exit_group")


def test_without_an_agent_there_is_no_container(box: Box, tmp_path: Path) -> None:
    """The refusal names the path; nothing is left."""
    config = box.config("a", "true")
    config["linux"]["seccomp"] = asking(str(tmp_path / "none.sock"), "mkdir")
    with pytest.raises(errors.SetupFailed, match=r"linux.seccomp.listenerPath: connect to .*/none.sock"):
        box.create("a", config)
    with pytest.raises(errors.UnknownContainer):
        state.load(box.root, "a")


def test_an_agent_that_has_gone_is_as_if_the_call_did_not_exist(box: Box, tmp_path: Path) -> None:
    """One that takes the connection and closes it hangs nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        config = box.config("a", "sh", "-c", "mkdir /made || echo refused")
        config["linux"]["seccomp"] = asking(str(tmp_path / "agent.sock"), "mkdir", "mkdirat")
        box.create("a", config)
        listener.accept()[0].close()
        box.ended("a")
    assert "Function not implemented" in box.output("a")


def test_a_listener_path_that_nobody_needs_is_ignored(box: Box) -> None:
    """As the specification says: without a call to ask about, nobody is told."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere/agent.sock", "listenerMetadata": "x"}

    def change(config: dict[str, Any]) -> None:
        config["linux"]["seccomp"] = profile

    assert box.run("a", "echo", "hello", change=change) == "hello"
