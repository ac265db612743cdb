"""Further processes in a running container."""

import os
import select
import socket
from pathlib import Path

import pytest

from runtime import errors, state
from tests.integration.runtime.conftest import Box, wait_until
from tests.support import groups

pytestmark = pytest.mark.root


def read_all(fd: int) -> bytes:
    """Everything until the end of file (or the terminal's end)."""
    out = b""
    while select.select([fd], [], [], 10)[0]:
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            break
        if not chunk:
            break
        out += chunk
    return out


def execute(box: Box, name: str, *args: str, **process: object) -> tuple[int, str]:
    """Run to the end with pipes; exit code and output."""
    ours, theirs = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    with box.monitor(name) as monitor:
        try:
            number, _, _ = monitor.execute({"args": list(args), **process}, stdio=(null, theirs, theirs))
        finally:
            os.close(theirs)
            os.close(null)
        out = read_all(ours)
        os.close(ours)
        return monitor.wait_exec(number, 10), out.decode()


def test_exec_without_terminal(box: Box) -> None:
    """It joins every namespace and the cgroup, with the container's own restrictions; the exit code comes back."""
    box.create("a", box.config("a", "sleep", "100"))
    script = "hostname; cat /proc/self/cgroup /proc/self/status; ls /proc/self/fd; echo $PATH; exit 9"
    code, out = execute(box, "a", "sh", "-c", script)
    assert code == 9
    assert out.startswith("a\n")
    assert ("0::/\n" if groups.V2 else "memory:/\n") in out
    assert "CapEff:\t00000000a80425fb" in out
    assert "NoNewPrivs:\t1" in out
    assert "0\n1\n2\n3\n" in out
    pid = state.load(box.root, "a").pid
    with box.monitor("a") as monitor:
        number, other, _ = monitor.execute({"args": ["sleep", "100"]})
        for kind in ("mnt", "net", "uts", "ipc", "cgroup", "pid"):
            assert Path(f"/proc/{pid}/ns/{kind}").readlink() == Path(f"/proc/{other}/ns/{kind}").readlink(), kind
        os.kill(other, 9)
        assert monitor.wait_exec(number, 10) == 137


def test_exec_with_terminal(box: Box) -> None:
    """The client gets the terminal's master: it reads, types and resizes by itself."""
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as monitor:
        script = "tty; stty size; read line; echo got $line; exit 4"
        number, _, master = monitor.execute(
            {"args": ["sh", "-c", script], "terminal": True, "consoleSize": {"height": 33, "width": 77}}
        )
        assert master is not None
        os.write(master, b"hello\n")
        out = read_all(master).decode()
        os.close(master)
        assert monitor.wait_exec(number, 10) == 4
    assert "/dev/pts/0" in out
    assert "33 77" in out
    assert "got hello" in out


def test_exec_as_another_user_in_another_folder(box: Box) -> None:
    """What the request says wins over what the container has."""
    box.create("a", box.config("a", "sleep", "100"))
    code, out = execute(box, "a", "sh", "-c", "id -u; pwd; echo $X", user={"username": "app"}, cwd="/tmp", env=["X=1"])
    assert (code, out.split()) == (0, ["1000", "/tmp", "1"])


def test_exec_errors(box: Box) -> None:
    """A missing program and a bad field are told at once, and leave no process."""
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as monitor:
        with pytest.raises(errors.ProgramNotFound, match="nothere"):
            monitor.execute({"args": ["nothere"]})
        with pytest.raises(errors.InvalidSpec, match=r"process.argz"):
            monitor.execute({"args": ["true"], "argz": []})
        with pytest.raises(errors.UnknownContainer, match="77"):
            monitor.wait_exec(77)
        number, _, _ = monitor.execute({"args": ["true"]})
        assert monitor.wait_exec(number, 10) == 0
    pid = state.load(box.root, "a").monitor_pid
    wait_until(
        lambda: len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 1, "only the first process is left"
    )


def test_exec_ends_with_the_container(box: Box) -> None:
    """When the container ends, so does what was executed in it, and both are reported."""
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as monitor:
        number, _, _ = monitor.execute({"args": ["sleep", "100"]})
        monitor.kill(9)
        assert monitor.event("exec-exit", 10, exec=number)["signal"] == 9
        assert monitor.wait(10).exit_code == 137


def test_container_with_terminal(box: Box) -> None:
    """The container's own terminal is its console; its output is logged, and it can be resized."""
    config = box.config("a", "sh", "-c", "tty; test -c /dev/console && stty size < /dev/console; sleep 100")
    config["process"] |= {"terminal": True, "consoleSize": {"height": 11, "width": 22}}
    box.create("a", config)
    wait_until(lambda: "11 22" in box.log_path("a").read_text(), "the size is seen")
    assert "/dev/pts/0" in box.output("a")
    with box.monitor("a") as monitor:
        monitor.resize(44, 55)
        master = next(
            fd
            for fd in Path(f"/proc/{state.load(box.root, 'a').monitor_pid}/fd").iterdir()
            if str(fd.readlink()).endswith("ptmx")
        )
        assert master.exists()
        code, out = execute(box, "a", "sh", "-c", "stty size < /dev/pts/0")
    assert (code, out.split()) == (0, ["44", "55"])


def test_passed_descriptors_are_the_stdio(box: Box) -> None:
    """With three descriptors nothing is pumped: the container reads and writes the caller's own."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    box.create("a", box.config("a", "cat"), stdio=(in_read, out_write, out_write), log=None)
    os.close(in_read)
    os.close(out_write)
    os.write(in_write, b"through\n")
    os.close(in_write)
    assert read_all(out_read) == b"through\n"
    os.close(out_read)
    assert box.ended("a").exit_code == 0


def test_attach_copies_the_output(box: Box) -> None:
    """An attached socket gets the raw stream from now on; the log gets everything."""
    box.create("a", box.config("a", "sh", "-c", "echo before; while [ ! -e /go ]; do sleep 0.01; done; echo after"))
    wait_until(lambda: "before" in box.log_path("a").read_text(), "the program runs")
    ours, theirs = socket.socketpair()
    with box.monitor("a") as monitor, ours:
        with theirs:
            monitor.attach(theirs.fileno())
        execute(box, "a", "touch", "/go")
        assert read_all(ours.fileno()) == b"after\n"
    box.ended("a")
    assert box.output("a") == "before\nafter"
