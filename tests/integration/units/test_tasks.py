"""The unit that has the control group of all tasks, where systemd is process 1, under a name of its own.

Processes stand for tasks: each is born in the group of the monitors, and goes to a group with limits. The virtual
machine has control groups of version 2 alone, or of version 1. What a whole installation does: deploy/test_install.py.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import cgroups, residence
from runtime.resources import Resources
from tests.support.waiting import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not Path("/run/systemd/system").is_dir(),
        reason="systemd does not run here; the virtual machine has it",
    ),
]
ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "deploy/system/orch-tasks.service").read_text()
NAME = "orch-test-tasks.service"
GROUP = f"/system.slice/{NAME}"
FILE = Path("/run/systemd/system", NAME)
DEADLINE_S = 60.0
"""For what takes a tenth of a second on a processor that is not emulated."""
MIB = 1 << 20
TASK_LIMIT = 64 * MIB
BORN = """\
import signal, sys
from runtime import residence
residence.enter(sys.argv[1])
signal.signal(signal.SIGTERM, signal.SIG_DFL)
print("born", flush=True)
if sys.stdin.readline() == "fill\\n":
    full = bytearray(int(sys.argv[2]))
signal.pause()
"""
RELEASE_BEFORE = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
Delegate=yes
KillMode=control-group
TimeoutStopSec=30s
"""
"""Without a keeper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A process in a group of its own, with limits."""

    process: subprocess.Popen[str]
    group: cgroups.Cgroup

    @property
    def groups(self) -> str:
        """Where it is, in every hierarchy."""
        return Path(f"/proc/{self.process.pid}/cgroup").read_text()

    def runs(self) -> bool:
        return self.process.poll() is None

    def fill(self) -> None:
        """Use more memory than it may."""
        assert self.process.stdin is not None, "it was asked for"
        self.process.stdin.write("fill\n")
        self.process.stdin.flush()


Start = Callable[[str], Task]


def systemctl(*words: str) -> str:
    """What it prints; it succeeds."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


def shown(name: str) -> str:
    """A property of the unit."""
    return systemctl("show", "--value", f"--property={name}", NAME)


def install(text: str) -> None:
    FILE.write_text(text)
    systemctl("daemon-reload")


def folders() -> list[str]:
    """The unit's group, and those below, in every hierarchy."""
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if NAME in folder.split("/")]


def inhabitants() -> set[int]:
    return {int(pid) for folder in folders() for pid in Path(folder, "cgroup.procs").read_text().split()}


def memory_limit() -> int | None:
    """The kernel's, for all tasks together."""
    return cgroups.existing(cgroups.current_layout(), GROUP).memory_limit()


def keeper() -> int:
    """The pid of the only process that is there before any task."""
    (pid,) = inhabitants()
    return pid


def kill_keeper(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in inhabitants(), what="the keeper has ended", timeout_s=DEADLINE_S)


def set_limit(megabytes: int) -> None:
    """By systemd; it is in the kernel then."""
    systemctl("set-property", "--runtime", NAME, f"MemoryMax={megabytes}M")
    assert memory_limit() == megabytes * MIB


def reload() -> None:
    systemctl("daemon-reload")


def execute_again() -> None:
    """As an upgrade of systemd does. It answers nobody until then."""
    subprocess.run(["systemctl", "daemon-reexec"], capture_output=True, timeout=DEADLINE_S, check=False)
    until(lambda: shown("ActiveState") == "active", what="systemd is back", timeout_s=DEADLINE_S)


@pytest.fixture
def start() -> Iterator[Start]:
    """The unit is installed, and not active. Starts a task of a name."""
    install(TEXT)
    tasks: list[Task] = []

    def born(name: str) -> Task:
        process = subprocess.Popen(
            [sys.executable, "-c", BORN, f"{GROUP}/@monitors", str(TASK_LIMIT)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        limits = Resources(memory_limit_bytes=TASK_LIMIT, cpu_shares=512, pids_limit=10)
        group = cgroups.Cgroup.plan(cgroups.current_layout(), f"{GROUP}/{name}", limits)
        tasks.append(Task(process=process, group=group))
        assert process.stdout is not None, "it was asked for"
        assert process.stdout.readline() == "born\n"
        group.create(limits)
        group.apply(limits)
        group.add(process.pid)
        return tasks[-1]

    try:
        yield born
    finally:
        for task in tasks:
            with task.process:
                task.process.kill()
        systemctl("stop", NAME)
        systemctl("revert", NAME)
        residence.remove(GROUP, 2)
        FILE.unlink(missing_ok=True)
        systemctl("daemon-reload")


def test_the_group_is_ready_when_the_unit_is(start: Start) -> None:
    """With the keeper, which is out of the way of controllers, and is nobody's main process."""
    systemctl("start", NAME)
    assert (shown("ActiveState"), shown("ControlGroup"), shown("MainPID")) == ("active", GROUP, "0")
    assert Path(f"/proc/{keeper()}/cmdline").read_bytes().split(b"\0")[-3:-1] == [b"sleep", b"infinity"]
    task = start("a")
    assert task.group.memory_limit() == TASK_LIMIT
    assert task.groups.count(f"{GROUP}/a\n") >= 1


def test_limits_are_set_whatever_becomes_of_the_keeper_and_of_systemd(start: Start) -> None:
    """Each is in the kernel at once, and every task stays in the groups that it has."""
    systemctl("start", NAME)
    pid, task = keeper(), start("a")
    before = task.groups
    for megabytes, change in enumerate((reload, execute_again, lambda: kill_keeper(pid), reload, execute_again), 200):
        set_limit(megabytes)
        change()
        assert memory_limit() == megabytes * MIB
        assert (task.runs(), task.groups, task.group.memory_limit()) == (True, before, TASK_LIMIT)
    set_limit(300)
    systemctl("set-property", "--runtime", NAME, "CPUWeight=50", "TasksMax=500")
    assert (task.runs(), task.groups, task.group.memory_limit()) == (True, before, TASK_LIMIT)


def test_an_empty_group_without_its_keeper_is_still_systemds(start: Start) -> None:
    """No agent runs, no task does, and somebody has killed the keeper."""
    systemctl("start", NAME)
    kill_keeper(keeper())
    set_limit(250)
    for change in (reload, execute_again):
        change()
        assert (shown("ActiveState"), memory_limit()) == ("active", 250 * MIB)
    set_limit(251)
    task = start("a")
    assert (task.runs(), memory_limit()) == (True, 251 * MIB)


def test_a_limit_that_is_stored_is_there_from_the_start(start: Start) -> None:
    """As at each boot."""
    systemctl("set-property", "--runtime", NAME, "MemoryMax=123M")
    systemctl("start", NAME)
    start("a")
    assert memory_limit() == 123 * MIB


@pytest.mark.parametrize("with_keeper", [True, False])
def test_stopping_ends_every_task_and_it_may_be_started_again(start: Start, *, with_keeper: bool) -> None:
    systemctl("start", NAME)
    first = keeper()
    tasks = [start("a"), start("b")]
    if not with_keeper:
        kill_keeper(first)
    systemctl("stop", NAME)
    assert [task.process.wait(DEADLINE_S) for task in tasks] == [-signal.SIGTERM] * 2
    assert (shown("ActiveState"), shown("ControlGroup"), inhabitants()) == ("inactive", "", set())
    systemctl("start", NAME)
    assert keeper() != first
    assert start("a").runs()


def test_a_restart_is_a_stop_and_a_start(start: Start) -> None:
    systemctl("start", NAME)
    first, task = keeper(), start("a")
    systemctl("restart", NAME)
    assert task.process.wait(DEADLINE_S) == -signal.SIGTERM
    assert (shown("ActiveState"), keeper() != first) == ("active", True)


def test_a_task_whose_memory_is_used_up_concerns_nobody_else(start: Start) -> None:
    systemctl("start", NAME)
    pid, filled, other = keeper(), start("a"), start("b")
    filled.fill()
    assert filled.process.wait(DEADLINE_S) == -signal.SIGKILL
    assert filled.group.oom_kills() == 1
    set_limit(250)  # whatever systemd does about it has been done by the time that it answers
    assert (shown("ActiveState"), other.runs(), pid in inhabitants()) == ("active", True, True)


def test_what_a_release_without_a_keeper_has_started_goes_on_and_can_be_ended(start: Start) -> None:
    """An upgrade leaves the unit as it runs. Stopping it ends tasks, though systemd has let go of their group."""
    install(RELEASE_BEFORE)
    systemctl("start", NAME)
    assert shown("ControlGroup") == "", "the reason for the keeper"
    task = start("a")
    install(TEXT)
    assert (shown("ActiveState"), task.runs()) == ("active", True)
    systemctl("stop", NAME)
    assert task.process.wait(DEADLINE_S) == -signal.SIGTERM
    systemctl("start", NAME)
    assert shown("ControlGroup") == GROUP
    assert keeper()


def test_a_rollback_to_such_a_release_leaves_tasks_alone(start: Start) -> None:
    """Also when the keeper is killed there."""
    systemctl("start", NAME)
    pid, task = keeper(), start("a")
    install(RELEASE_BEFORE)
    assert (shown("ActiveState"), task.runs()) == ("active", True)
    kill_keeper(pid)
    set_limit(250)
    assert (shown("ActiveState"), task.runs()) == ("active", True)
