"""The reaper's own program for each machine that it is written for, beside shells of this machine.

The other machine's runs under an emulator of Debian's qemu-user-static. A container of that machine would need its
kernel; what the reaper does, it does with any child.
"""

import os
import platform
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import reaper, syscalls
from tests.support.waiting import until

pytestmark = pytest.mark.root

Start = Callable[[str], int]


def _emulator(machine: str) -> list[str]:
    if machine == platform.machine():
        return []
    path = Path(f"/usr/bin/qemu-{machine}-static")
    assert path.exists(), f"{path} is missing: apt-get install qemu-user-static, or deploy/setup.sh test"
    return [str(path)]


@pytest.fixture(params=reaper.MACHINES)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start a shell's script below a reaper; returns the reaper's pid, which is a child of the test."""
    made: list[int] = []

    def begin(script: str) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                _become_reaper(request.param, tmp_path, script)
            finally:
                os._exit(99)
        made.append(pid)
        return pid

    yield begin
    for pid in made:
        for child in (pid, *_children(pid)):
            _end(child)


def _become_reaper(machine: str, folder: Path, script: str) -> None:
    """As `reaper.leave_behind` does it, with a file instead of a sealed memory file; without a pid namespace."""
    syscalls.set_child_subreaper()
    output = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv("/bin/sh", ["sh", "-c", script])
    program = folder / "reaper"
    program.write_bytes(reaper.program(child, machine))
    program.chmod(0o755)
    line = [*_emulator(machine), str(program)]
    os.execv(line[0], line)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        sys.stdout.write(f"{pid} has ended\n")


def _ended(pid: int) -> int:
    """Its exit code, soon; -N when signal N ended the reaper itself."""
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], 20)[0], f"process {pid} does not end"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _await(folder: Path, word: str) -> None:
    path = folder / "said"
    until(lambda: path.exists() and word in path.read_text(), what=f"the script says {word}", timeout_s=20)


@pytest.mark.parametrize("code", [0, 1, 125, 255])
def test_its_exit_code_is_the_programs(start: Start, code: int) -> None:
    """All eight bits of it."""
    assert _ended(start(f"exit {code}")) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_a_program_that_a_signal_ends_is_128_and_the_signal(start: Start, number: int) -> None:
    """As a shell tells it; a core dump, which is one more bit of the status, makes no difference."""
    assert _ended(start(f"kill -{number} $$; sleep 100")) == 128 + number


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "WINCH", "PIPE", "ALRM", "CONT"])
def test_signals_reach_the_program(start: Start, tmp_path: Path, name: str) -> None:
    """Each of them, and the reaper goes on."""
    pid = start(f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.02; done")
    _await(tmp_path, "ready")
    os.kill(pid, signal.Signals[f"SIG{name}"])
    assert _ended(pid) == 9
    assert "got" in (tmp_path / "said").read_text()


def test_the_dead_are_buried(start: Start, tmp_path: Path) -> None:
    """A hundred orphans, many at once; the program itself, which ends later, is told from them."""
    pid = start("for n in $(seq 100); do (sleep 0.01 &) ; done; echo made; exec sleep 1000")
    _await(tmp_path, "made")
    until(lambda: len(_children(pid)) == 1, what="only the program is left", timeout_s=20)
    os.kill(_children(pid)[0], signal.SIGTERM)
    assert _ended(pid) == 128 + signal.SIGTERM


def test_it_goes_on_after_it_was_stopped(start: Start, tmp_path: Path) -> None:
    """A wait that is interrupted is no end."""
    pid = start("trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done")
    _await(tmp_path, "ready")
    for number in (signal.SIGSTOP, signal.SIGCONT) * 3:
        os.kill(pid, number)
        stopped = number == signal.SIGSTOP
        until(lambda stopped=stopped: _is_stopped(pid) == stopped, what="it is stopped, or goes on")
    os.kill(pid, signal.SIGUSR1)
    assert _ended(pid) == 5


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
