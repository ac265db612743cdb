"""A node's machine holds everything that runs on it, and is gone with its process 1."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import claims, network, plan, processes
from tests.support.waiting import until

pytestmark = pytest.mark.root

Boot = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[int]:
    """A LAN of its own, which the host reaches by a link that goes with it."""
    name = f"m{secrets.token_hex(3)}"
    with claims.a_lan(network.taken(), f"test {tmp_path}") as lan:
        the_plan = plan.Plan(name=name, folder=str(tmp_path), nodes=1, lan=lan, config=str(tmp_path / "c"))
        namespace = network.make_lan(the_plan)
        yield namespace
        os.close(namespace)
        if network.exists(the_plan.host_link):
            network.ip(f"link delete {the_plan.host_link}")


@pytest.fixture
def boot(lan: int, tmp_path: Path) -> Iterator[Boot]:
    """Boots a machine whose agent is a shell script; its output is in `log`."""
    machines: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "deploy.local.machine", "--name", "m1", "--address", "10.111.0.11/24"]
        command += ["--tasks", str(tmp_path / "tasks"), "--run", str(tmp_path / "run"), "--", "/bin/sh", "-c", script]
        with (tmp_path / "log").open("ab") as log, network.inside(lan):
            machines.append(subprocess.Popen(command, stdout=log, stderr=log))
        return machines[-1]

    yield start
    for machine in machines:
        machine.kill()
        machine.wait(timeout=10)


def log(folder: Path) -> str:
    return (folder / "log").read_text() if (folder / "log").exists() else ""


def init_of(machine: subprocess.Popen[bytes]) -> int:
    def look() -> list[int]:
        return [pid for pid in processes.children(machine.pid) if processes.is_first(pid)]

    return until(look, what="the machine's process 1")[0]


def descendants(pid: int) -> list[processes.Process]:
    found = [processes.of(child) for child in processes.children(pid)]
    return found + [below for child in found for below in descendants(child.pid)]


def test_a_machine_has_its_own_name_processes_and_address(boot: Boot, tmp_path: Path) -> None:
    """Nothing of the host shows in it."""
    boot("hostname; echo pid-of-init=$PPID; ip -br addr show eth0; ls /proc | grep -c '^[0-9]'; exec sleep 100")
    until(lambda: len(log(tmp_path).splitlines()) >= 4, what="the script's output")
    name, parent, address, count = log(tmp_path).splitlines()
    assert name == "m1"
    assert parent == "pid-of-init=1"
    assert "10.111.0.11/24" in address
    assert int(count) < 10, "the host's processes show in its /proc"


def test_an_agent_that_dies_is_started_again(boot: Boot, tmp_path: Path) -> None:
    """As an init system does, after a moment."""
    boot("echo started; exit 7")
    until(lambda: log(tmp_path).count("started") >= 3, what="three starts")
    assert "the agent ended with 7" in log(tmp_path)


def test_orphans_are_reaped(boot: Boot) -> None:
    """Process 1 inherits the children of the dead, and buries them."""
    machine = boot("for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; exec sleep 100")
    init = init_of(machine)
    until(
        lambda: [processes.command_line(pid) for pid in processes.children(init)] == [["sleep", "100"]],
        what="only the agent is left",
    )
    assert machine.poll() is None


@pytest.mark.parametrize("who", ["init", "outer"])
def test_pulling_the_plug_ends_every_process(boot: Boot, who: str) -> None:
    """Whichever of its two processes is killed, and whatever the others do about signals."""
    machine = boot("trap '' TERM HUP INT; setsid sleep 100 & exec sleep 100")
    init = init_of(machine)
    inside = until(lambda: found if len(found := descendants(init)) == 2 else None, what="the agent and its child")
    os.kill(init if who == "init" else machine.pid, signal.SIGKILL)
    machine.wait(timeout=10)
    assert inside
    assert all(process.wait(5) for process in inside)


def test_a_machine_is_asked_to_stop_and_asks_its_agent(boot: Boot, tmp_path: Path) -> None:
    """SIGINT goes to the agent, since it does not come back; its end is the machine's."""
    machine = boot("trap 'echo goodbye; exit 0' INT; echo ready; while :; do sleep 0.05; done")
    until(lambda: "ready" in log(tmp_path), what="the agent is up")
    machine.terminate()
    assert machine.wait(timeout=10) == 0
    assert "goodbye" in log(tmp_path)


def test_a_machine_can_be_switched_on_again_at_once(boot: Boot, tmp_path: Path) -> None:
    """Its link in the LAN may still be there."""
    for times in (1, 2):
        machine = boot("echo up; exec sleep 100")
        until(lambda: log(tmp_path).count("up") == times, what=f"boot {times}")  # noqa: B023 - called at once
        os.kill(init_of(machine), signal.SIGKILL)
        machine.wait(timeout=10)
    assert "cannot" not in log(tmp_path)


def test_neighbours_know_a_machine_after_its_reboot(boot: Boot, lan: int, tmp_path: Path) -> None:
    """Neither its hardware address nor the bridge's changes, so nobody sends into the void meanwhile."""
    seen = []
    for times in (1, 2):
        machine = boot("ip -o link show eth0; exec sleep 100")
        until(lambda: log(tmp_path).count("link/ether") == times, what=f"boot {times}")  # noqa: B023 - called at once
        with network.inside(lan):
            bridge = subprocess.run(
                ["ip", "-o", "link", "show", network.BRIDGE], capture_output=True, text=True, check=True
            )
        seen.append((_hardware(log(tmp_path).splitlines()[-1]), _hardware(bridge.stdout)))
        os.kill(init_of(machine), signal.SIGKILL)
        machine.wait(timeout=10)
    assert seen[0] == seen[1]
    assert seen[0][0] == "02:6c:0a:6f:00:0b"


def _hardware(line: str) -> str:
    return line.partition("link/ether ")[2].split()[0]


def test_tasks_find_a_place_even_on_an_overlay(boot: Boot, tmp_path: Path) -> None:
    """Inside a container the state folder often is one, and one overlay cannot hold the other's writable side."""
    parts = {"lowerdir": tmp_path / "lower", "upperdir": tmp_path / "upper", "workdir": tmp_path / "work"}
    for part in (*parts.values(), tmp_path / "tasks"):
        part.mkdir()
    options = ",".join(f"{key}={part}" for key, part in parts.items())
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "tasks"], check=True)
    try:
        boot(f"stat --file-system --format=%T {tmp_path}/tasks; exec sleep 100")
        until(lambda: "tmpfs\n" in log(tmp_path), what="the tasks' folder is a tmpfs")
        assert "a tmpfs is mounted over it" in log(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path / "tasks"], check=True)


def test_tasks_stay_on_the_disk_where_they_can(boot: Boot, tmp_path: Path) -> None:
    """And the probe leaves nothing there."""
    boot("echo up; exec sleep 100")
    until(lambda: "up" in log(tmp_path), what="the machine is up")
    assert "tmpfs" not in log(tmp_path)
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_full_disk_under_its_log_pulls_no_plug(lan: int, tmp_path: Path) -> None:
    """The agent dies, which cannot be written down; it is started again all the same."""
    script = f"echo begun >> {tmp_path}/begun; exit 1"
    command = [sys.executable, "-m", "deploy.local.machine", "--name", "m1", "--address", "10.111.0.11/24"]
    command += ["--tasks", str(tmp_path / "tasks"), "--run", str(tmp_path / "run"), "--", "/bin/sh", "-c", script]
    with Path("/dev/full").open("wb") as full, network.inside(lan):
        machine = subprocess.Popen(command, stdout=full, stderr=full)
    try:
        until(
            lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text().count("begun") > 2, what="thrice"
        )
        assert machine.poll() is None
    finally:
        machine.kill()
        machine.wait(timeout=10)
