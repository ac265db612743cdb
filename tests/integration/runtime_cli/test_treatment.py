"""How the kernel treats what the command makes: a container that it leaves alone, and a further process of one."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_cli.conftest import Command

pytestmark = pytest.mark.root


def test_process_fields(command: Command) -> None:
    """The container has its own scheduling, personality and memory policy; an exec has what its file says."""

    def change(config: dict[str, Any]) -> None:
        config["process"].update(scheduler={"policy": "SCHED_BATCH", "nice": -5})
        config["process"].update(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 1})
        config["linux"].update(personality={"domain": "LINUX32"})
        config["linux"].update(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"})

    pid = command.start("a", change=change)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, pid) == -5
    assert " bind:0 " in Path(f"/proc/{pid}/numa_maps").read_text()
    assert Path(f"/proc/{pid}/personality").read_text() == "00000008\n"
    last = max(os.sched_getaffinity(0))
    script = "ionice -p $$; grep Cpus_allowed_list /proc/self/status; cat /proc/self/personality"
    process = {
        "args": ["sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "scheduler": {"policy": "SCHED_OTHER"},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "execCPUAffinity": {"initial": "0", "final": str(last)},
    }
    file = command.folder / "process.json"
    file.write_text(json.dumps(process))
    shown = command.ok("exec", "--process", file, "a").split()
    assert (shown[0], shown[2], shown[-1]) == ("idle", str(last), "00000008")


def test_time_namespace(command: Command) -> None:
    """The clocks are shifted for the container and its execs."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 7000000, "nanosecs": 1}}

    pid = command.start("a", change=change)
    assert Path(f"/proc/{pid}/ns/time").readlink() != Path("/proc/self/ns/time").readlink()
    assert float(command.ok("exec", "a", "cat", "/proc/uptime").split()[0]) > 7000000


def test_network_device(command: Command) -> None:
    """An interface moves with `create`, before any program runs."""
    name = f"cl{os.getpid() % 10**6}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True, timeout=30)
    try:
        subprocess.run(["ip", "address", "add", "10.98.7.1/30", "dev", name], check=True, timeout=30)
        change = {"netDevices": {name: {"name": "data0"}}}
        command.start("a", change=lambda config: config["linux"].update(change))
        shown = command.ok("exec", "a", "ip", "-o", "address", "show", "dev", "data0")
        assert "inet 10.98.7.1/30" in shown
        assert not Path(f"/sys/class/net/{name}").exists()
    finally:
        subprocess.run(["ip", "link", "delete", f"{name}p"], check=True, timeout=30)


def test_copied_up_folder(command: Command) -> None:
    """A tmpfs over a folder of the bundle begins with what is there."""
    mount = {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    command.start("a", change=lambda config: config["mounts"].append(mount))
    assert "root:x:0:0" in command.ok("exec", "a", "cat", "/etc/passwd")
    command.ok("exec", "a", "sh", "-c", "echo changed > /etc/passwd")
    assert (command.rootfs / "etc/passwd").read_text().startswith("root:x:0:0")
