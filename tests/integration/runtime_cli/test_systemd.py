"""Containers in scopes of systemd's, by `--systemd-cgroup`, where systemd is process 1."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups
from tests.integration.runtime_cli.conftest import Command
from tests.support.waiting import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not Path("/run/systemd/system").is_dir(),
        reason="systemd does not run here; the virtual machine has it",
    ),
]
USER = 1000
DEADLINE_S = 60.0
"""For what takes a tenth of a second on a processor that is not emulated."""

Change = Callable[[dict[str, Any]], None]


def systemctl(*words: str) -> str:
    """What it prints; it succeeds."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return done.stdout.strip()


def shown(unit: str, name: str) -> str:
    """A property of a unit."""
    return systemctl("show", "--value", f"--property={name}", unit)


def is_gone(unit: str) -> bool:
    """Whether systemd knows of no such unit, and no hierarchy has a folder of its name."""
    return shown(unit, "LoadState") == "not-found" and not _folders(unit)


def _folders(unit: str) -> list[str]:
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if unit in folder.split("/")]


def await_gone(unit: str) -> None:
    """Until then; a failure tells what there is."""
    try:
        until(lambda: is_gone(unit), what=f"no {unit}", timeout_s=DEADLINE_S)
    except AssertionError as error:
        there = {folder: Path(folder, "cgroup.procs").read_text().split() for folder in _folders(unit)}
        raise AssertionError(f"{error}: {systemctl('show', unit)}\n{there}") from None


def in_scope(path: str, further: Change = lambda _: None) -> Change:
    """A change of a configuration that names a scope."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = path
        further(config)

    return change


class Scoped:
    """The command with `--systemd-cgroup`, and containers that run in the background."""

    def __init__(self, command: Command) -> None:
        self.command = command

    def start(self, name: str, path: str, *args: str, further: Change = lambda _: None) -> int:
        """A container that runs; its pid."""
        bundle = self.command.bundle(name, args or ("sleep", "1000"), change=in_scope(path, further))
        with (self.command.folder / f"{name}.out").open("wb") as output:
            code = self.command.detached("--systemd-cgroup", "run", "--detach", "--bundle", bundle, name, output=output)
        assert code == 0, (self.command.folder / f"{name}.out").read_text()
        return self.command.pid(name)

    def refused(self, name: str, path: str, further: Change = lambda _: None) -> str:
        """What is said to a creation that fails, after which there is nothing."""
        bundle = self.command.bundle(name, ["true"], change=in_scope(path, further))
        said = self.command.refused("--systemd-cgroup", "run", "--bundle", bundle, name)
        assert name not in self.command.leftovers()
        return said

    def group(self, name: str) -> cgroups.Cgroup:
        """The container's group, as its state says."""
        known = json.loads((self.command.root / name / "state.json").read_text())
        return cgroups.of(known["cgroups_path"])


@pytest.fixture
def scoped(command: Command) -> Iterator[Scoped]:
    yield Scoped(command)
    for name in command.leftovers():
        command.ok("--systemd-cgroup", "delete", "--force", name)


def test_the_life_of_a_scope(scoped: Scoped) -> None:
    """It is a unit while the container is there, every verb works in it, and its name is free at once afterwards."""
    command, unit = scoped.command, "orchtest-a.scope"
    for _ in range(3):
        pid = scoped.start("a", "system.slice:orchtest:a")
        assert shown(unit, "ActiveState") == "active"
        assert shown(unit, "Slice") == "system.slice"
        assert shown(unit, "Delegate") == "yes"
        assert shown(unit, "ControlGroup") == f"/system.slice/{unit}"
        assert scoped.group("a").path == f"/system.slice/{unit}/container"
        assert scoped.group("a").pids() == [pid]
        rows = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        tracked = [path for _, names, path in rows if names in {"", "name=systemd"}]
        assert tracked
        assert all(path.startswith(f"/system.slice/{unit}") for path in tracked), rows
        command.ok("--systemd-cgroup", "kill", "a", "KILL")
        until(lambda: command.status("a") == "stopped", what="its end", timeout_s=DEADLINE_S)
        command.ok("--systemd-cgroup", "delete", "a")
        assert is_gone(unit)
        (command.folder / "a/config.json").unlink()
        (command.folder / "a").rmdir()


def test_verbs_in_a_scope(scoped: Scoped) -> None:
    """They find the group by the state, with the flag or without."""
    command = scoped.command
    pid = scoped.start("a", "system.slice:orchtest:a")
    assert command.ok("--systemd-cgroup", "exec", "a", "cat", "/proc/1/comm") == "sleep\n"
    assert json.loads(command.ok("ps", "--format", "json", "a")) == [pid]
    command.ok("--systemd-cgroup", "pause", "a")
    assert command.status("a") == "paused"
    command.ok("resume", "a")
    assert json.loads(command.ok("stats", "a"))["data"]["pids"]["current"] == 1
    command.ok("--systemd-cgroup", "update", "--pids-limit", "77", "a")
    assert scoped.group("a").read("pids", "pids.max").strip() == "77"


def test_limits_outlive_what_systemd_does(scoped: Scoped) -> None:
    """A reload makes it write all its units' groups again: ours is one below."""

    def limit(config: dict[str, Any]) -> None:
        config["linux"]["resources"] = {
            "memory": {"limit": 64 << 20},
            "pids": {"limit": 55},
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "access": "rwm"}],
        }

    scoped.start("a", "system.slice:orchtest:a", further=limit)
    group = scoped.group("a")
    for _ in range(2):
        assert group.memory_limit() == 64 << 20
        assert group.read("pids", "pids.max").strip() == "55"
        # Block devices are forbidden, whoever asks: root of the container may make a node, and not open it.
        probe = "mknod /dev/b b 7 0 && head -c1 /dev/b; rm /dev/b"
        assert "Operation not permitted" in scoped.command.call("exec", "a", "sh", "-c", probe).stderr
        systemctl("daemon-reload")


def test_the_default_scope(scoped: Scoped) -> None:
    """No path: orchrun-ID.scope among the system's."""
    scoped.start("web", "")
    assert shown("orchrun-web.scope", "ControlGroup") == "/system.slice/orchrun-web.scope"
    assert shown("orchrun-web.scope", "Description") == "container web"


def test_a_slice_in_a_slice(scoped: Scoped) -> None:
    """systemd says where it is."""
    scoped.start("x", "orcha-b.slice::x")
    assert scoped.group("x").path == "/orcha.slice/orcha-b.slice/x.scope/container"
    scoped.command.ok("delete", "--force", "x")
    systemctl("stop", "orcha.slice")


def test_a_scope_that_is_stopped(scoped: Scoped) -> None:
    """systemd ends the container, and `delete` finds nothing left but our own folder."""
    scoped.start("a", "system.slice:orchtest:a", "sh", "-c", "trap 'exit 3' TERM; sleep 1000 & wait")
    systemctl("stop", "orchtest-a.scope")
    until(lambda: scoped.command.status("a") == "stopped", what="its end", timeout_s=DEADLINE_S)
    scoped.command.ok("delete", "a")
    assert is_gone("orchtest-a.scope")


def test_properties(scoped: Scoped) -> None:
    """As podman asks for them; what systemd does not know is refused in its words."""

    def ask(config: dict[str, Any]) -> None:
        config["annotations"] = {
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.Description": "'of mine'",
        }

    def ask_wrongly(config: dict[str, Any]) -> None:
        config["annotations"] = {"org.systemd.property.NoSuchThing": "true"}

    scoped.start("a", "system.slice:orchtest:a", further=ask)
    assert shown("orchtest-a.scope", "TimeoutStopUSec") == "7s"
    assert shown("orchtest-a.scope", "Description") == "of mine"
    said = scoped.refused("b", "system.slice:orchtest:b", ask_wrongly)
    assert "systemd: orchtest-b.scope: " in said
    assert "NoSuchThing" in said
    assert is_gone("orchtest-b.scope")


def test_a_name_that_is_taken(scoped: Scoped) -> None:
    """Who has it is left alone, and the remedy is told; likewise for a container's own name."""
    pid = scoped.start("a", "system.slice:orchtest:a")
    said = scoped.refused("b", "system.slice:orchtest:a")
    assert "orchtest-a.scope" in said
    assert "stop it (systemctl stop orchtest-a.scope), or use another cgroupsPath" in said
    again = scoped.command.refused("--systemd-cgroup", "run", "--bundle", scoped.command.folder / "a", "a")
    assert "container a: exists already" in again
    assert scoped.group("a").pids() == [pid]


def test_a_creation_that_fails(scoped: Scoped) -> None:
    """Before systemd is asked and after it: nothing is left."""

    def without_program(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["/nosuch"]

    def with_wrong_limit(config: dict[str, Any]) -> None:
        config["linux"]["resources"] = {"cpu": {"cpus": "4000"}}

    assert "/nosuch" in scoped.refused("a", "system.slice:orchtest:a", without_program)
    assert "cpu.cpus" in scoped.refused("b", "system.slice:orchtest:b", with_wrong_limit)
    assert "is no name of a slice" in scoped.refused("c", "system:orchtest:c")
    for name in ("a", "b", "c"):
        await_gone(f"orchtest-{name}.scope")


def test_a_command_in_the_foreground(scoped: Scoped) -> None:
    """It is in the scope itself, and the last to leave it."""
    bundle = scoped.command.bundle("a", ["sh", "-c", "exit 7"], change=in_scope("system.slice:orchtest:a"))
    for _ in range(2):
        assert scoped.command.call("--systemd-cgroup", "run", "--bundle", bundle, "a").returncode == 7
        await_gone("orchtest-a.scope")


def test_an_ordinary_user(scoped: Scoped, tmp_path: Path) -> None:
    """The user's own systemd makes the scope, in the part of the tree that it was given."""
    systemctl("start", f"user@{USER}.service")
    manager = f"/user.slice/user-{USER}.slice/user@{USER}.service"
    for folder in {tmp_path, *tmp_path.parents, *scoped.command.path.parents}:
        folder.chmod(folder.stat().st_mode | 0o011)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, USER, USER)

    def of_user(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [{"type": kind} for kind in ("user", "pid", "mount", "ipc", "uts", "cgroup")]
        for kind in ("uid", "gid"):
            config["linux"][f"{kind}Mappings"] = [{"containerID": 0, "hostID": USER, "size": 1}]
        # What a user is given are controllers of version 2.
        config["linux"]["resources"] = {"pids": {"limit": 33}} if cgroups.current_layout().is_v2 else {}
        config["linux"].pop("sysctl", None)
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] in {"/proc", "/dev"}]

    bundle = scoped.command.bundle("a", ["sh", "-c", "cat /proc/self/cgroup"], change=in_scope("", of_user))
    line = [scoped.command.path, "--root", home / "state", "--systemd-cgroup", "run", "--bundle", bundle, "a"]
    # Without a message bus the user's systemd cannot ask for a process from elsewhere: the command begins in its tree.
    become = "import os, sys\n"
    become += "".join(
        f"open('{folder}/cgroup.procs', 'w').write('0')\n" for folder in _tracked(f"{manager}/init.scope")
    )
    become += f"os.setgroups([]), os.setgid({USER}), os.setuid({USER}), os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", become, *line],
        env={**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{USER}"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0::/\n" in done.stdout, "it is the root of what it sees"
    assert [path.name for path in home.glob("state/*") if not path.name.startswith("@")] == []


def _tracked(path: str) -> list[str]:
    """A group in the hierarchies by which systemd tells units apart."""
    roots = [Path("/sys/fs/cgroup", name) for name in ("systemd", "unified")]
    return [f"{root}{path}" for root in roots if root.is_dir()] or [f"/sys/fs/cgroup{path}"]


def test_creators_that_are_killed(scoped: Scoped) -> None:
    """At any moment: `delete` removes what is left, and the name is free."""
    command = scoped.command
    bundle = command.bundle("a", ["sleep", "1000"], change=in_scope("system.slice:orchtest:a"))
    took = _create_for(command, bundle, None)
    for part in range(1, 5):
        _create_for(command, bundle, took * part / 5)
        command.ok("--systemd-cgroup", "delete", "--force", "a")
        await_gone("orchtest-a.scope")
        assert command.leftovers() == []


def _create_for(command: Command, bundle: Path, seconds: float | None) -> float:
    """Create a container, and remove it, and how long the creation took; or kill the creation after some time."""
    line = command.line("--systemd-cgroup", "create", "--bundle", bundle, "a")
    started = time.monotonic()
    with (command.folder / "out").open("wb") as output:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            code = process.wait(timeout=seconds or DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=DEADLINE_S)
            return 0.0
    took = time.monotonic() - started
    assert code == 0, (command.folder / "out").read_text()
    if seconds is None:
        command.ok("--systemd-cgroup", "delete", "--force", "a")
    return took
