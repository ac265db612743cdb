"""Which ends of an agent are announced: those that systemd, or whoever else has started it, lets a start follow."""

import signal
import socket
from pathlib import Path
from typing import cast

import pytest

from agent import goodbye, options
from agent.session import Session
from protos import absence
from protos.supervision import Supervisor
from tests.support import aio

NAME = "orch-agent.service"
V2 = f"0::/system.slice/{NAME}\n"
HYBRID = f"4:pids:/orch\n1:name=systemd:/system.slice/{NAME}/own\n0::/\n"


class Listening:
    """As a session, which keeps what was announced over it."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    async def leave(self, back_within_ms: int) -> None:
        self.heard.append(back_within_ms)


async def said(
    told_by: signal.Signals = signal.SIGTERM, *, notify: Path | None = None, back_within_ms: int = 30_000
) -> list[int]:
    """What an agent announces that is told to end. `notify`: the socket of the service manager that has started it."""
    session = Listening()
    supervisor = Supervisor({"NOTIFY_SOCKET": str(notify)} if notify is not None else {})
    await goodbye.Goodbye(cast("Session", session), supervisor, back_within_ms).say(told_by)
    return session.heard


@aio.bounded(20)
async def test_without_a_service_manager_sigterm_comes_back_and_a_person_does_not() -> None:
    assert await said() == [30_000]
    assert await said(signal.SIGINT) == []
    assert await said(back_within_ms=0) == [], "0s says nothing"


@aio.bounded(20)
@pytest.mark.parametrize(
    ("systemctl", "announced"),
    [
        (f"echo ' 812 {NAME} restart running'", True),
        ("echo 'No jobs listed.'", True),
        (f"echo '812 {NAME} stop running'", False),
        (f"echo '1 shutdown.target start waiting'; echo '812 {NAME} stop running'", False),
        (f"echo '812 {NAME} restart running'; exit 1", False),
        ("exec sleep 60", False),
        (None, False),
    ],
    ids=["restart", "kill", "stop", "power off", "systemd fails", "systemd hangs", "no systemctl"],
)
async def test_a_service_comes_back_unless_systemd_stops_it(
    systemctl: str | None, announced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What systemd does not say in time is not announced."""
    group = tmp_path / "cgroup"
    group.write_text(V2)
    monkeypatch.setattr(goodbye, "_OWN_GROUP", group)
    monkeypatch.setattr(goodbye, "ASK_TIMEOUT_S", 0.5 if systemctl == "exec sleep 60" else 10.0)
    if systemctl is not None:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{systemctl}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if systemctl is not None else str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        assert await said(notify=tmp_path / "notify") == ([30_000] if announced else [])


def test_an_agent_finds_its_unit_in_the_hierarchy_of_systemd() -> None:
    assert goodbye.unit_of(V2) == goodbye.unit_of(HYBRID) == NAME
    assert goodbye.unit_of("0::/user.slice/session-1.scope\n") == ""


REQUIRED = ("--name=n1", "--server=unix:/run/orch.sock", "--address=10.0.0.1", "--state=/var/lib/orch")


def test_the_time_is_a_duration_that_the_leader_grants() -> None:
    assert options.parse(REQUIRED).back_within == 30
    assert options.parse([*REQUIRED, "--back-within", "10m"]).back_within * 1000 == absence.LONGEST_MS
    with pytest.raises(SystemExit):
        options.parse([*REQUIRED, "--back-within", "10m1s"])
