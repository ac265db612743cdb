"""The last thing that an agent says: that it goes in order, and that one is back soon.

Only an end that is followed by a start is announced, or the tasks of a machine that goes off would wait for it:

| how it is told to end | why | is it announced? |
|---|---|---|
| SIGTERM, and systemd has a job of the type restart for the unit | `systemctl restart`, an upgrade | yes |
| SIGTERM, and systemd has no job for it | `kill`, `systemctl kill`: the unit says `Restart=always` | yes |
| SIGTERM, and systemd's job is a stop | the machine goes off, `systemctl stop`, `uninstall` | no |
| SIGTERM, and it is not systemd's service | whoever has started it can do it again | yes |
| SIGINT | Ctrl-C; whoever takes the node off the machine (`agent.leave`) | no |

The job is asked for, and not what the machine is about to do (`systemctl is-system-running`): a shutdown is a stop job
of every unit, from before the first of them is told, and this way a stop by a person is known, too. What cannot be
known in time is not announced: then the node is lost as any other.
"""

import asyncio
import signal
from pathlib import Path
from typing import Final

import structlog

from agent.session import Session
from protos import supervision

log = structlog.get_logger()

ASK_TIMEOUT_S: Final = 3.0
"""systemd answers within milliseconds; a slow machine takes a second to start a program."""
_OWN_GROUP: Final = Path("/proc/self/cgroup")
_SYSTEMD_HIERARCHIES: Final = ("", "name=systemd")
"""Of the control groups in which systemd keeps its units: version 2, and its own one of version 1 (cgroups(7))."""


class Goodbye:
    """Said over the session. `back_within_ms`: what is announced; 0 says nothing."""

    def __init__(self, session: Session, supervisor: supervision.Supervisor, back_within_ms: int) -> None:
        self._session = session
        self._supervised = supervisor.present
        self._back_within_ms = back_within_ms

    async def say(self, told_by: signal.Signals) -> None:
        """Announces it when there is something to announce. Takes a few seconds at most."""
        if not self._back_within_ms or told_by is not signal.SIGTERM:
            return
        if self._supervised and not await _is_started_again():
            return
        await self._session.leave(self._back_within_ms)


async def _is_started_again() -> bool:
    unit = unit_of(_OWN_GROUP.read_text())
    # `list-jobs` of systemctl(1): a line for each job, of number, unit, type and state. A restart stays one until the
    # unit has stopped.
    command = ("systemctl", "--no-legend", "--plain", "--full", "list-jobs", unit or "-")
    try:
        jobs = await _answer_of(*command)
    except (OSError, TimeoutError) as error:
        log.warning("systemd does not say why this agent ends", why=str(error) or "no answer in time")
        return False
    return jobs is not None and bool(unit) and comes_back(unit, jobs)


async def _answer_of(*command: str) -> str | None:
    """What a program says; None when it has failed. Raises OSError, and TimeoutError after it was ended."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode() if process.returncode == 0 else None


def unit_of(groups: str) -> str:
    """The service of systemd's that a process is of, by its /proc/PID/cgroup; empty: of none.

    Example: `0::/system.slice/orch-agent.service/below` → `orch-agent.service`.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        services = [part for part in path.split("/") if part.endswith(".service")]
        if controllers in _SYSTEMD_HIERARCHIES and services:
            return services[-1]
    return ""


def comes_back(unit: str, jobs: str) -> bool:
    """Whether systemd starts the unit again, by the jobs that it lists.

    Example: `1042 orch-agent.service stop running` → it does not.
    """
    rows = [line.split() for line in jobs.splitlines()]
    return not any(len(row) == 4 and row[1] == unit and row[2] == "stop" for row in rows)
