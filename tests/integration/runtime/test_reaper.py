"""Process 1 of containers that ask for one: it passes signals on, buries the dead, and ends as the program does."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from runtime import errors, state, syscalls
from tests.integration.runtime.conftest import Box, wait_until

pytestmark = pytest.mark.root

FOREVER = "while :; do sleep 0.02; done"


def with_init(config: dict[str, Any]) -> None:
    config["annotations"] = {"orch.init": "true"}


def started(box: Box, script: str, **process: Any) -> None:
    """A container `a` whose program says "ready"."""
    config = box.config("a", "sh", "-c", script)
    with_init(config)
    config["process"] |= process
    box.create("a", config)
    wait_until(lambda: "ready" in box.output("a"), "the program is ready")


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_its_exit_code_is_the_programs(box: Box, code: int) -> None:
    """Whatever else is still running then ends, too."""
    config = box.config("a", "sh", "-c", f"sleep 100 & exit {code}")
    with_init(config)
    box.create("a", config)
    assert box.ended("a").exit_code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMAX])
def test_a_program_that_a_signal_ends_is_128_and_the_signal(box: Box, number: int) -> None:
    """As a shell tells it."""
    config = box.config("a", "sh", "-c", f"kill -{number} $$; sleep 100")
    with_init(config)
    box.create("a", config)
    assert box.ended("a").exit_code == 128 + number


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "PIPE", "ALRM", "CONT"])
def test_signals_reach_the_program(box: Box, name: str) -> None:
    """Those that are sent to the container."""
    started(box, f"trap 'echo got; exit 9' {name}; echo ready; {FOREVER}")
    with box.monitor("a") as monitor:
        monitor.kill(signal.Signals[f"SIG{name}"])
        assert monitor.wait(10).exit_code == 9
    assert "got" in box.output("a")


def test_a_program_without_a_handler_ends_by_a_signal(box: Box) -> None:
    """As process 1 itself it would not: the kernel spares that."""
    started(box, f"echo ready; {FOREVER}")
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGTERM)
        assert monitor.wait(10).exit_code == 128 + signal.SIGTERM


def test_signals_go_to_the_program_alone(box: Box) -> None:
    """Its children are its own affair: many programs mean something else by a signal than their workers."""
    started(box, f"trap 'echo parent; exit 0' USR1; (trap 'echo child' USR1; {FOREVER}) & echo ready; {FOREVER}")
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGUSR1)
        monitor.wait(10)
    assert box.output("a").split() == ["ready", "parent"]


def test_no_signal_is_lost_from_the_very_start(box: Box) -> None:
    """One that is sent while the container is made is waiting for the program."""
    config = box.config("a", "sh", "-c", FOREVER)
    with_init(config)
    box.create("a", config, start=False)
    with box.monitor("a") as monitor:
        monitor.start()
        monitor.kill(signal.SIGTERM)
        assert monitor.wait(10).exit_code == 128 + signal.SIGTERM


def test_the_dead_are_buried(box: Box) -> None:
    """Three hundred processes whose parents ended before them; none stays as a zombie."""
    script = """
        for n in $(seq 300); do (sleep 0.01 &) ; done
        while :; do
            left=$(grep -l sleep /proc/[0-9]*/comm 2>/dev/null | wc -l)
            dead=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z')
            [ $left = 0 ] && [ $dead = 0 ] && exit 0
            sleep 0.05
        done
    """
    box.run("a", "sh", "-c", script, change=with_init)


def test_nothing_of_the_host_is_behind_it(box: Box) -> None:
    """Its executable is a sealed memory file of a few hundred bytes; it has no descriptor but 0, 1 and 2."""
    script = """
        echo $$; tr '\\0' ' ' < /proc/1/cmdline; echo
        readlink /proc/1/exe; wc -c < /proc/1/exe; ls /proc/1/fd | tr '\\n' ' '; echo
        (echo x > /proc/1/exe) 2>&1 || echo sealed; cat /proc/1/environ | wc -c
    """
    out = box.run("a", "sh", "-c", script, change=with_init).splitlines()
    assert out[:3] == ["2", "orch-init ", "/memfd:orch-init (deleted)"]
    assert int(out[3]) < 400
    assert out[4] == "0 1 2 "
    assert out[-2:] == ["sealed", "0"]


def test_it_is_held_as_the_program_is(box: Box) -> None:
    """The same user, capabilities, filter of system calls; a program cannot get at more through it."""
    fields = "Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:"
    script = (
        f"grep -E '{fields}' /proc/1/status > /tmp/1; grep -E '{fields}' /proc/self/status > /tmp/2; cmp /tmp/1 /tmp/2"
    )

    def change(config: dict[str, Any]) -> None:
        with_init(config)
        config["process"]["user"] = {"uid": 1000, "gid": 1000}

    assert "Seccomp:\t2" in box.run("a", "sh", "-c", script + " && cat /tmp/1", change=change)


def test_it_takes_next_to_no_memory(box: Box) -> None:
    """Python would be ten megabytes of each container's limit."""
    out = box.run("a", "sh", "-c", "grep -E 'VmRSS|Threads' /proc/1/status", change=with_init)
    found = dict(line.split(":") for line in out.splitlines())
    assert int(found["VmRSS"].split()[0]) <= 64
    assert found["Threads"].strip() == "1"


def test_what_cannot_be_executed_is_told_as_ever(box: Box) -> None:
    """With its code, and nothing stays."""
    for program, error in (("nothere", errors.ProgramNotFound), ("/etc/passwd", errors.ProgramNotExecutable)):
        config = box.config("a", program)
        with_init(config)
        with pytest.raises(error):
            box.create("a", config)
        assert not Path(box.root, "a").exists()
    broken = Path(box.image, "bin", "broken")
    broken.write_bytes(b"\x7fELF and nothing more")
    broken.chmod(0o755)
    config = box.config("a", "/bin/broken")
    with_init(config)
    with pytest.raises(errors.ProgramNotExecutable, match="broken"):
        box.create("a", config)
    assert not Path(box.root, "a").exists()


def test_commands_join_beside_it(box: Box) -> None:
    """And their orphans are buried by it."""
    started(box, f"echo ready; {FOREVER}")
    with box.monitor("a") as monitor:
        number, _, _ = monitor.execute({"args": ["sh", "-c", "sleep 0.01 & exit 3"]})
        assert monitor.wait_exec(number, 10) == 3
        assert state.load(box.root, "a").status == "running"


def on_terminal(box: Box, *args: str) -> int:
    """A container with a terminal; returns a copy of the terminal's master, to type on."""
    config = box.config("a", *args)
    with_init(config)
    config["process"]["terminal"] = True
    box.create("a", config)
    monitor = state.load(box.root, "a").monitor_pid
    (number,) = (int(fd.name) for fd in Path(f"/proc/{monitor}/fd").iterdir() if fd.readlink().name == "ptmx")
    pidfd = os.pidfd_open(monitor)
    try:
        return syscalls.pidfd_getfd(pidfd, number)
    finally:
        os.close(pidfd)


def test_what_is_typed_reaches_the_program_once(box: Box) -> None:
    """It leads the terminal's group, which process 1 is not in."""
    script = f"trap 'echo INT' INT; trap 'exit 4' QUIT; echo ready; {FOREVER}"
    master = on_terminal(box, "sh", "-c", script)
    wait_until(lambda: "ready" in box.output("a"), "the program is ready")
    os.write(master, b"\x03")
    wait_until(lambda: "INT" in box.output("a"), "ctrl-C reaches the program")
    os.write(master, b"\x1c")
    os.close(master)
    assert box.ended("a").exit_code == 4
    assert box.output("a").count("INT") == 1


def test_a_shell_has_job_control(box: Box) -> None:
    """It may stop what it started, put it behind, and bring it to the front again."""
    master = on_terminal(box, "sh", "-i")
    os.write(master, b"sleep 100\n")
    wait_until(lambda: "sleep 100" in box.output("a"), "it is typed")
    wait_until(lambda: _is_in_front(master), "sleep has the terminal")
    os.write(master, b"\x1a")
    wait_until(lambda: "Stopped" in box.output("a"), "ctrl-Z stops it")
    os.write(master, b"fg\n")
    wait_until(lambda: _is_in_front(master), "sleep has the terminal again")
    os.write(master, b"\x03")
    wait_until(lambda: not _is_in_front(master), "ctrl-C ends it")
    os.write(master, b"exit 5\n")
    os.close(master)
    assert box.ended("a").exit_code == 5
    assert "job control turned off" not in box.output("a")


def _is_in_front(master: int) -> bool:
    """Whether the terminal's group is led by a sleep."""
    group = os.tcgetpgrp(master)
    try:
        return Path(f"/proc/{group}/comm").read_text() == "sleep\n"
    except (FileNotFoundError, ProcessLookupError):  # it ends at this moment
        return False


@pytest.mark.parametrize(
    ("value", "namespaces", "complaint"),
    [("yes", ["pid"], "must be true or false"), ("true", [], "needs a new pid namespace")],
)
def test_what_it_cannot_be(box: Box, value: str, namespaces: list[str], complaint: str) -> None:
    """Refused with the annotation's name."""
    config = box.config("a", "true")
    config["annotations"] = {"orch.init": value}
    config["linux"]["namespaces"] = [
        entry for entry in config["linux"]["namespaces"] if entry["type"] != "pid" or namespaces
    ]
    with pytest.raises(errors.InvalidSpec, match=complaint):
        box.create("a", config)


def test_killing_it_ends_everything(box: Box) -> None:
    """As `kill -9` of process 1 always does."""
    started(box, f"echo ready; {FOREVER}")
    os.kill(state.load(box.root, "a").pid, signal.SIGKILL)
    assert box.ended("a").exit_code == 137
