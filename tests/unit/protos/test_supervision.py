"""What a service manager hears, over a real socket of its kind."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from protos.supervision import Supervisor
from tests.support import aio


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(5)
    return made


@aio.bounded(20)
async def test_it_says_that_it_is_ready_and_then_again_and_again_that_it_lives(tmp_path: Path) -> None:
    """At least twice in the period that the manager wants to hear it in."""
    with listening(tmp_path / "notify") as manager:
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000", "OTHER": "1"}
        supervisor = Supervisor(environment)
        assert environment == {"OTHER": "1"}, "what is started from here would speak for the service"
        assert supervisor.present
        assert not Supervisor(environment).present
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervisor.run("serves"))
            heard = [(await asyncio.to_thread(manager.recv, 100)).decode() for _ in range(4)]
            task.cancel()
        assert heard == ["READY=1\nSTATUS=serves", *["WATCHDOG=1"] * 3]
        supervisor.stopping()
        assert manager.recv(100) == b"STOPPING=1"


def test_an_abstract_socket_is_reached() -> None:
    """systemd gives one to what has a root of its own."""
    name = f"orch-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}).tell("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere"}, {"WATCHDOG_USEC": "soon"}])
def test_without_a_manager_nothing_is_missing(environment: dict[str, str]) -> None:
    supervisor = Supervisor(environment)
    supervisor.tell("READY=1")
    assert supervisor.watchdog_s == 0


def test_a_watchdog_that_is_meant_for_another_process_is_left_to_it() -> None:
    environment = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert Supervisor(environment).watchdog_s == 0
    assert Supervisor({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 1
