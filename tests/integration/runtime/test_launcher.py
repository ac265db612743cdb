"""A launcher goes on without the processes that it has forked, and what it has begun ends with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import client, state
from runtime.script import machine
from tests.integration.runtime.conftest import Box, wait_gone, wait_until
from tests.support import processes

pytestmark = [pytest.mark.root, pytest.mark.skipif(not machine.SUPPORTED, reason="the machine code is x86-64's")]

REPOSITORY = Path(__file__).parents[3]


def test_a_launcher_goes_on_without_its_zygote(box: Box) -> None:
    """It is forked again, and containers whose monitors it has forked live on."""
    launcher = box.launcher.ping()
    first = box.create("a", box.config("a", "sleep", "100"))
    for number in range(3):
        wait_until(lambda: len(processes.zygotes(launcher)) == 1, "one zygote")
        (zygote,) = processes.zygotes(launcher)
        os.kill(zygote, signal.SIGKILL)
        wait_gone(zygote)
        for name in (f"b{number}", f"c{number}"):
            assert box.create(name, box.config(name, "sleep", "100"))["scripted"]
    assert state.load(box.root, "a").status == "running"
    assert first["pid"] == state.load(box.root, "a").pid


def test_a_launcher_goes_on_without_the_monitor_that_stands_by(box: Box) -> None:
    """Whoever killed it did not kill a container; the next one is just made by another."""
    launcher = box.launcher.ping()
    wait_until(lambda: processes.zygotes(launcher), "a zygote")
    (zygote,) = processes.zygotes(launcher)
    for number in range(3):
        wait_until(lambda: _standing_by(box, zygote), "a monitor stands by")
        for pid in _standing_by(box, zygote):
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
        name = f"a{number}"
        box.create(name, box.config(name, "sleep", "100"))
        assert state.load(box.root, name).status == "running"


BEGIN = """
import os, socket, sys, time
from runtime import scripted, standby
from runtime.script import machine, steps
from tests.support import processes, waiting

memory = machine.Memory()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
monitor = os.fork()
if monitor == 0:
    ours.close()
    standby.run(theirs.fileno(), sys.argv[1], memory)
theirs.close()
script = steps.Script(memory.address)
wake, dead, told = script.given(), script.given(), script.given()
script.call("poll", script.cell_address(wake), 2, -1)
script.call("poll", script.cell_address(dead), 1, 0, leave=True)
script.call("read", wake, script.room(8), 8)
begun = scripted.Begun(sys.argv[1], own_pids=True, born=0, opened=(), stdio=0, log=None)
scripted.begin(ours, begun, script.part(), [])
(first,) = waiting.until(lambda: processes.living(processes.children(monitor)), what="it is begun")
end = sys.argv[2]
if end == "the launcher":
    ours.close()
else:
    os.kill(monitor, 9)
print(os.waitpid(monitor, 0)[1])
waiting.until(lambda: not processes.living([first]), what="it ends, too")
"""


@pytest.mark.parametrize(("end", "status"), [("the launcher", "0"), ("the monitor", "9")])
def test_what_is_begun_ends_with_whoever_began_it(tmp_path: Path, end: str, status: str) -> None:
    """When the rest does not come any more, and when nobody is there to take it, though nothing kills it then."""
    command = [sys.executable, "-c", BEGIN, tmp_path, end]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.returncode) == (f"{status}\n", 0), ran.stderr


def _standing_by(box: Box, zygote: int) -> list[int]:
    known = {each.monitor_pid for each in client.list_containers(box.root)}
    return [pid for pid in processes.living(processes.children(zygote)) if pid not in known]
