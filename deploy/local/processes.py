"""Processes by pid and start time, so that a pid that was used again is never mistaken for the old process."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """`started` is the start time in clock ticks since boot, field 22 of /proc/PID/stat (proc(5))."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """A zombie is dead."""
        state, started = _state_and_start(self.pid)
        return started == self.started and state not in "ZX"

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError), _pidfd(self.pid) as fd:
            if self.alive:  # asked after the pidfd was opened: from here on the pid cannot be another's
                signal.pidfd_send_signal(fd, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ends in that time. Works for processes of others, too."""
        with contextlib.suppress(ProcessLookupError), _pidfd(self.pid) as fd:
            if self.alive:
                select.select([fd], [], [], timeout_s)
        return not self.alive


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def of(pid: int) -> Process:
    """The process that has this pid now. ProcessLookupError when there is none."""
    _, started = _state_and_start(pid)
    if not started:
        raise ProcessLookupError(f"no process has the pid {pid}")
    return Process(pid=pid, started=started)


def _state_and_start(pid: int) -> tuple[str, int]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


def children(pid: int) -> list[int]:
    """The children of a process, oldest first."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_line(pid: int) -> list[str]:
    """Its arguments; empty for a zombie and for one that has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_first(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace (the last number of `NSpid`, proc(5))."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"


def first_of_container(task: str) -> int | None:
    """The host's pid of process 1 of a task's container, by its control group. None: there is none."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            groups = (entry / "cgroup").read_text().splitlines()
            if any(group.endswith(f"/{task}") for group in groups) and is_first(int(entry.name)):
                return int(entry.name)
    return None
