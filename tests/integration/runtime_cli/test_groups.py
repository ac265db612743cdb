"""Cgroups by the command line: every flag of `update`, containers without any group, and the forms of the path."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_cli.conftest import Command
from tests.support import groups
from tests.support.waiting import until

pytestmark = pytest.mark.root

MB = 1 << 20
V1_ONLY = pytest.mark.skipif(groups.V2, reason="names of cgroup v1's files; this machine has v2")


def held(command: Command, controller: str, file: str) -> str:
    return (groups.folder(controller, f"{command.parent}/a") / file).read_text().strip()


@V1_ONLY
def test_every_flag_of_update(command: Command) -> None:
    """Each has its file, also of a controller that the container was not in."""
    pid = command.start("a")
    command.ok("update", "--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "a")
    command.ok("update", "--kernel-memory-tcp", "8m", "--pids-limit", "44", "--cpu-share", "512", "a")
    command.ok("update", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpu-burst", "10000", "a")
    command.ok("update", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--blkio-weight", "300", "a")
    weight = (
        "blkio.bfq.weight" if (groups.folder("blkio", command.parent) / "blkio.bfq.weight").exists() else "blkio.weight"
    )
    expected = {
        "memory.limit_in_bytes": 64 * MB,
        "memory.memsw.limit_in_bytes": 96 * MB,
        "memory.soft_limit_in_bytes": 32 * MB,
        "memory.kmem.tcp.limit_in_bytes": 8 * MB,
        "pids.max": 44,
        "cpu.shares": 512,
        "cpu.cfs_quota_us": 50000,
        "cpu.cfs_period_us": 100000,
        "cpu.cfs_burst_us": 10000,
        "cpuset.cpus": 0,
        "cpuset.mems": 0,
        weight: 300,
    }
    assert {file: int(held(command, file.partition(".")[0], file)) for file in expected} == expected
    assert held(command, "cpuset", "cgroup.procs") == str(pid)
    command.ok("update", "--cpu-burst", "0", "--cpu-idle", "1", "a")
    assert (held(command, "cpu", "cpu.cfs_burst_us"), held(command, "cpu", "cpu.idle")) == ("0", "1")
    command.ok("update", "--cpu-idle", "0", "--memory-swap", "-1", "--cpu-quota", "-1", "a")
    assert (held(command, "cpu", "cpu.idle"), held(command, "cpu", "cpu.cfs_quota_us")) == ("0", "-1")


@V1_ONLY
def test_an_update_that_is_refused_changes_nothing(command: Command) -> None:
    """By our reading of it or by the kernel's, with one line that names the field."""
    command.start("a")
    command.ok("update", "--memory", "64m", "--pids-limit", "44", "a")
    path = command.folder / "resources.json"
    wanted = {"memory": {"limit": 32 * MB}, "blockIO": {"throttleReadBpsDevice": [{"major": 4000, "rate": 5}]}}
    path.write_text(json.dumps(wanted))
    for arguments, said in (
        (["--resources", path], "linux.resources.blockIO.throttleReadBpsDevice: cannot write '4000:0 5'"),
        (["--memory", "32m", "--cpuset-cpus", "4000"], "linux.resources.cpu.cpus: cannot write '4000'"),
        (["--memory", "32m", "--kernel-memory", "1m"], "linux.resources.memory.kernel: has no effect"),
        (["--memory", "32m", "--blkio-weight", "5"], "linux.resources.blockIO.weight: must be between 10 and 1000"),
        (["--memory", "32m", "--pids-limit", "0"], "--pids-limit: 0 asks for nothing"),
    ):
        assert said in command.refused("update", *arguments, "a")
        assert (held(command, "memory", "memory.limit_in_bytes"), held(command, "pids", "pids.max")) == (
            str(64 * MB),
            "44",
        )
    assert not groups.folder("cpuset", f"{command.parent}/a").exists()


def test_zeros_from_docker_change_nothing(command: Command) -> None:
    """It sends the whole object, in which only what is asked for is not zero."""
    command.start("a")
    command.ok("update", "--memory", "64m", "a")
    zeros: dict[str, Any] = {
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0},
        "pids": {"limit": 55},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    command.ok("update", "--resources", "-", "a", stdin=None, input=json.dumps(zeros))
    told = json.loads(command.ok("stats", "a"))["data"]
    assert (told["memory"]["usage"]["limit"], told["pids"]["limit"]) == (64 * MB, 55)


def without_limits(config: dict[str, Any]) -> None:
    del config["linux"]["resources"]


def test_without_a_cgroup(command: Command) -> None:
    """--cgroup-manager disabled: it lives and ends in its caller's group, and what needs a group is refused."""
    bundle = command.bundle("a", ["sh", "-c", "cat /proc/self/cgroup; exec sleep 1000"], change=without_limits)
    mine = Path("/proc/self/cgroup").read_text()
    out = command.folder / "a.out"
    line = ("--cgroup-manager", "disabled", "run", "--detach", "--bundle", bundle, "a")
    with out.open("wb") as output:
        assert command.detached(*line, output=output) == 0, out.read_text()
    until(lambda: out.read_text().count("\n") == mine.count("\n"), what="it tells its groups")
    assert groups.below(command.parent) == []
    assert command.parent not in Path(f"/proc/{command.pid('a')}/cgroup").read_text()
    assert command.status("a") == "running"
    assert command.call("exec", "a", "true").returncode == 0
    assert "has no freezer" in command.refused("pause", "a")
    assert "linux.resources.pids.limit: needs a cgroup" in command.refused("update", "--pids-limit", "5", "a")
    assert "--cgroup-manager disabled" in command.refused("ps", "a")
    assert "--cgroup-manager disabled" in command.refused("kill", "--all", "a", "KILL")
    assert json.loads(command.ok("stats", "a"))["data"]["pids"] == {"current": 0}
    command.ok("kill", "a", "KILL")
    until(lambda: command.status("a") == "stopped", what="its end")
    command.ok("delete", "a")
    assert command.leftovers() == []


def test_limits_without_a_cgroup_are_refused(command: Command) -> None:
    """The first of them by its name, and nothing is left."""
    bundle = command.bundle("a", ["true"])
    said = command.refused("--cgroup-manager", "disabled", "create", "--bundle", bundle, "a")
    assert "linux.resources.pids.limit: needs a cgroup, and --cgroup-manager disabled asks for none" in said
    assert command.leftovers() == []


def test_forms_of_the_path(command: Command) -> None:
    """Relative to our parent, and not systemd's, unless it is asked for and runs here."""

    def relative(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = f"{command.parent.removeprefix('/orch/')}/a"

    def of_systemd(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = "system.slice:docker:abc"

    command.start("a", change=relative)
    assert groups.folder("pids", f"{command.parent}/a").is_dir()
    bundle = command.bundle("b", ["true"], change=of_systemd)
    said = command.refused("create", "--bundle", bundle, "b")
    assert "linux.cgroupsPath: 'system.slice:docker:abc' is systemd's form" in said
    if not Path("/run/systemd/system").is_dir():
        said = command.refused("--systemd-cgroup", "create", "--bundle", bundle, "b")
        assert "--systemd-cgroup: systemd does not run on this machine" in said


def test_devices_without_a_cgroup(command: Command) -> None:
    """Rules for devices are kept where no node can be made and the image's own do not work; else they are refused."""

    def with_rules(config: dict[str, Any]) -> None:
        config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        for kind in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][kind].remove("CAP_MKNOD")

    node = command.rootfs / "node"
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    try:
        script = "echo x >/dev/null && echo fine; (: </node) 2>/dev/null || echo no node; mknod /dev/x c 1 3 || echo no"
        bundle = command.bundle("a", ["sh", "-c", script], change=with_rules)
        told = command.ok("--cgroup-manager", "disabled", "run", "--bundle", bundle, "a").splitlines()
        assert [line for line in told if "mknod" not in line] == ["fine", "no node", "no"]
    finally:
        node.unlink()

    def with_limits_gone(config: dict[str, Any]) -> None:
        del config["linux"]["resources"]["pids"]

    bundle = command.bundle("b", ["true"], change=with_limits_gone)
    said = command.refused("--cgroup-manager", "disabled", "run", "--bundle", bundle, "b")
    assert "linux.resources.devices: needs a cgroup where process.capabilities has CAP_MKNOD" in said


def test_statistics_have_runcs_names(command: Command) -> None:
    """Whatever runc tells of the same bundle is told by the same name, so whoever parses its words parses ours."""
    command.start("a")
    runc = ["runc", "--root", command.folder / "runc"]
    with (command.folder / "out").open("wb") as output:
        line = [*runc, "run", "--detach", "--bundle", command.folder / "a", "b"]
        path = command.folder / "a/config.json"
        config = json.loads(path.read_text())
        config["linux"]["cgroupsPath"] = f"{command.parent}-runc"
        path.write_text(json.dumps(config))
        subprocess.run(line, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        said = subprocess.run([*runc, "events", "--stats", "b"], check=True, timeout=60, capture_output=True, text=True)
    finally:
        subprocess.run([*runc, "delete", "--force", "b"], check=True, timeout=60)
        # It has groups in hierarchies of which we use none.
        for folder in Path("/sys/fs/cgroup").glob(f"*{command.parent}-runc"):
            folder.rmdir()
    theirs, ours = json.loads(said.stdout)["data"], json.loads(command.ok("events", "--stats", "a"))["data"]
    # Settings rather than statistics, and what neither has.
    missing = _names(theirs) - _names(ours) - {"cpuset", "intel_rdt", "network_interfaces"}
    assert {name for name in missing if not name.startswith("cpuset.")} == set()


def _names(value: dict[str, Any], start: str = "") -> set[str]:
    """The paths of all fields."""
    found = {start + name for name in value}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= _names(inner, f"{start}{name}.")
    return found
