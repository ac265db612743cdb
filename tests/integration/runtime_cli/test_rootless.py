"""The command as an ordinary user calls it, and as root of a user namespace does: what the kernel grants, works."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_cli.conftest import ROOT, Command, Typist

pytestmark = pytest.mark.root

UID, GID = 1000, 1001
Change = Callable[[dict[str, Any]], None]


class Ordinary(Command):
    """The command, called by an ordinary user, with a home that this user can reach."""

    as_user: tuple[str, ...] = ()  # what comes before the command

    def line(self, *arguments: object) -> list[str]:
        return [*self.as_user, *super().line(*arguments)]

    def call(self, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        return super().call(*arguments, **self.user(), **options)

    def user(self) -> dict[str, Any]:
        """Who calls, for subprocess."""
        variables = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self.folder / "run")}
        return {"user": UID, "group": GID, "extra_groups": [], "env": variables, "cwd": "/"}

    def runc_bundle(self, name: str, *args: str, change: Change | None = None) -> Path:
        """What runc writes for an ordinary user, for this program."""
        return self.changed(name, ["runc", "spec", "--rootless", "--bundle"], args, change)

    def own_bundle(self, name: str, *args: str, change: Change | None = None) -> Path:
        """What `orchrun spec --rootless` writes."""
        return self.changed(name, self.line("spec", "--rootless", "--bundle"), args, change)

    def changed(self, name: str, writer: list[str], args: tuple[str, ...], change: Change | None) -> Path:
        folder = self.folder / name
        folder.mkdir()
        os.chown(folder, UID, GID)
        subprocess.run([*writer, str(folder)], check=True, timeout=30, **self.user())
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["root"]["path"] = str(self.rootfs)
        config["process"].update(terminal=False, args=list(args))
        if change is not None:
            change(config)
        path.write_text(json.dumps(config))
        return folder

    def run(self, bundle: Path) -> str:
        """The output of the program."""
        return self.ok("run", "--bundle", bundle, bundle.name)


@pytest.fixture(scope="session")
def public(rootfs: Path) -> Iterator[Path]:
    """A folder that an ordinary user can reach, which pytest's are not, with the command and a root file system."""
    with tempfile.TemporaryDirectory(prefix="orchrun-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        subprocess.run([ROOT / "deploy/install-runtime.sh", folder / "prefix"], check=True, timeout=120)
        shutil.copytree(rootfs, folder / "rootfs", symlinks=True)
        for path in (folder / "rootfs", *(folder / "rootfs").rglob("*")):
            os.chown(path, UID, GID, follow_symlinks=False)
        yield folder


@pytest.fixture
def ordinary(public: Path) -> Iterator[Ordinary]:
    """Whose containers are gone when the test ends."""
    with tempfile.TemporaryDirectory(dir=public) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        for path in (folder, folder / "run"):
            os.chown(path, UID, GID)
        made = Ordinary(public / "prefix/bin/orchrun", public / "rootfs", folder, "")
        try:
            yield made
        finally:
            for container in made.ok("list", "--quiet").split():
                made.ok("delete", "--force", container)


def test_bundle_of_runc(ordinary: Ordinary) -> None:
    """A bundle that runc writes for the user runs: root inside is the user outside, with all of /dev and no cgroup."""
    script = "id -u; cat /proc/self/uid_map /proc/self/cgroup; echo $$; ls -l /dev/null /dev/tty; echo > /dev/null"
    out = ordinary.run(ordinary.runc_bundle("a", "sh", "-c", script))
    uid, mapping, *groups, pid, null, tty = out.splitlines()
    assert (uid, mapping.split(), pid) == ("0", ["0", str(UID), "1"], "1")
    assert not [line for line in groups if "/orch" in line]
    assert null.startswith("crw-rw-rw-")
    assert tty.startswith("crw-rw-rw-")
    assert ordinary.leftovers() == []


def test_own_bundle(ordinary: Ordinary) -> None:
    """Ours has the default's filter and capabilities, a read-only /sys with all below it, and a read-only root."""
    script = (
        "touch /file /sys/fs/cgroup/file 2>&1 | grep -c Read-only; mount -t tmpfs x /mnt 2>&1; "
        "grep -e Seccomp: -e CapEff /proc/self/status; cat /proc/1/attr/current >/dev/null 2>&1; hostname"
    )
    out = ordinary.run(ordinary.own_bundle("a", "sh", "-c", script))
    assert out.splitlines()[0] == "2"
    assert "Seccomp:\t2" in out
    assert "CapEff:\t00000000a80425fb" in out
    assert out.endswith("orchrun\n")


def test_life(ordinary: Ordinary) -> None:
    """Each verb of a life works without root: create, start, state, exec, list, kill, delete."""
    bundle = ordinary.runc_bundle("a", "sleep", "1000")
    with (ordinary.folder / "out").open("wb") as out:
        line = ordinary.line("create", "--bundle", bundle, "a")
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
        subprocess.run(line, check=True, timeout=60, **streams, **ordinary.user())
    assert ordinary.status("a") == "created"
    ordinary.ok("start", "a")
    assert Path(f"/proc/{ordinary.pid('a')}").stat().st_uid == UID
    done = ordinary.call("exec", "a", "sh", "-c", "id -u; cat /proc/1/comm; exit 3")
    assert (done.returncode, done.stdout) == (3, "0\nsleep\n"), done.stderr
    assert "a" in ordinary.ok("list", "--quiet").split()
    for words in (("ps", "a"), ("kill", "--all", "a")):
        assert "has no cgroup" in ordinary.refused(*words)
    ordinary.ok("kill", "a", "KILL")
    ordinary.ok("delete", "--force", "a")
    assert ordinary.leftovers() == []


def test_state_folder_of_the_user(ordinary: Ordinary) -> None:
    """Without --root the containers are known in the user's own run-time folder."""
    bundle = ordinary.runc_bundle("a", "true")
    line = [str(ordinary.path), "run", "--keep", "--bundle", str(bundle), "a"]
    subprocess.run(line, check=True, timeout=60, stdin=subprocess.DEVNULL, **ordinary.user())
    assert (ordinary.folder / "run/orchrun/a/state.json").stat().st_uid == UID
    line = [str(ordinary.path), "delete", "a"]
    subprocess.run(line, check=True, timeout=60, **ordinary.user())


def test_score_can_only_rise(ordinary: Ordinary) -> None:
    """A higher score is the container's, and an exec's; a lower one is refused."""

    def score(number: int) -> Change:
        return lambda config: config["process"].update(oomScoreAdj=number)

    assert ordinary.run(ordinary.runc_bundle("a", "cat", "/proc/self/oom_score_adj", change=score(700))) == "700\n"
    bundle = ordinary.runc_bundle("c", "sleep", "1000", change=score(300))
    line = ordinary.line("run", "--detach", "--bundle", bundle, "c")
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.run(line, check=True, timeout=60, **streams, **ordinary.user())
    assert ordinary.ok("exec", "c", "cat", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj") == "300\n300\n"
    bundle = ordinary.runc_bundle("b", "true", change=score(-900))
    said = ordinary.refused("run", "--bundle", bundle, "b")
    assert "process.oomScoreAdj: -900 is below this process's own, and a user may only raise it" in said


def test_time_namespace(ordinary: Ordinary) -> None:
    """An ordinary user may shift the container's clocks."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 7000000}}

    out = ordinary.run(ordinary.runc_bundle("a", "cat", "/proc/uptime", change=change))
    assert float(out.split()[0]) > 7000000


def test_terminal(ordinary: Ordinary) -> None:
    """A shell on a terminal of the container's own."""
    bundle = ordinary.own_bundle("a", "sh", change=lambda config: config["process"].update(terminal=True))
    with Typist(ordinary.line("run", "--bundle", bundle, "a"), **ordinary.user()) as typist:
        typist.expect("# ")
        typist.type("tty; stty size; exit 5\n")
        typist.expect("/dev/pts/0")
        typist.expect("33 77")
        assert typist.ended() == 5


def limit(config: dict[str, Any]) -> None:
    config["linux"]["resources"] = {"pids": {"limit": 5}}


def further_group(config: dict[str, Any]) -> None:
    config["process"]["user"]["additionalGids"] = [4]


def more_ids(config: dict[str, Any]) -> None:
    config["linux"]["uidMappings"][0]["size"] = 2


def other_group(config: dict[str, Any]) -> None:
    config["linux"]["gidMappings"][0]["hostID"] = 4


def no_user_namespace(config: dict[str, Any]) -> None:
    linux = config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "user"]
    del linux["uidMappings"], linux["gidMappings"]


def other_user(config: dict[str, Any]) -> None:
    config["process"]["user"]["uid"] = 5


def node(config: dict[str, Any]) -> None:
    config["linux"]["devices"] = [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 3}]


def idmapped(config: dict[str, Any]) -> None:
    config["mounts"].append({"destination": "/x", "source": "/usr", "options": ["bind", "idmap"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (limit, f"linux.resources: this user may not make the cgroup /orch-{UID}/a"),
        (further_group, "process.user.additionalGids: 4 cannot be taken"),
        (
            more_ids,
            f"root to the own id only, which is {{containerID: 0, hostID: {UID}, size: 1}}",
        ),
        (other_group, "linux.gidMappings: an ordinary user may map root"),
        (no_user_namespace, "linux.namespaces: an ordinary user needs a new user namespace"),
        (other_user, "become user 5, group 0: not in the mappings"),
        (node, "/dev/zero: bind the host's, since no node may be made in a user namespace: that is another device"),
        (idmapped, "mounts[7].options: an ordinary user cannot have idmapped mounts"),
    ],
)
def test_what_cannot_be_had_is_refused(ordinary: Ordinary, change: Change, said: str) -> None:
    """By the field, and nothing is left."""
    bundle = ordinary.runc_bundle("a", "true", change=change)
    assert said in ordinary.refused("run", "--bundle", bundle, "a")
    assert ordinary.leftovers() == []


def test_device_of_the_host(ordinary: Ordinary) -> None:
    """A node that cannot be made is the host's, in the place that was asked for."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]

    if not Path("/dev/fuse").exists():
        pytest.skip("this machine has no /dev/fuse")
    out = ordinary.run(ordinary.runc_bundle("a", "stat", "-c", "%t:%T", "/dev/fuse", change=change))
    assert out == "a:e5\n"


@pytest.mark.parametrize("flags", ["-Urm", "-Ur"])
@pytest.mark.parametrize("nested", [False, True])
def test_root_of_a_user_namespace(ordinary: Ordinary, flags: str, *, nested: bool) -> None:
    """With a mount namespace of its own and without, for a container that shares the user namespace or has another."""

    def change(config: dict[str, Any]) -> None:
        if not nested:
            no_user_namespace(config)
            return
        for name in ("uidMappings", "gidMappings"):
            config["linux"][name] = [{"containerID": 0, "hostID": 0, "size": 1}]

    ordinary.as_user = ("unshare", flags)
    script = "id -u; echo ok > /dev/null && ls /dev/pts /sys > /dev/null && echo fine"
    assert ordinary.run(ordinary.own_bundle("a", "sh", "-c", script, change=change)) == "0\nfine\n"


def test_ids_that_the_caller_has_not_are_named(ordinary: Ordinary) -> None:
    """In a user namespace the host is that namespace."""
    bundle = ordinary.own_bundle("a", "true")
    ordinary.as_user = ("unshare", "-Urm")
    said = ordinary.refused("run", "--bundle", bundle, "a")
    assert f"linux.uidMappings: hostID {UID} (size 1) is not among the ids of the user namespace" in said


def test_word_for_rootless(ordinary: Ordinary, command: Command) -> None:
    """It may say what is the case."""
    assert "--rootless: false is not the case" in ordinary.refused("--rootless", "false", "list")
    ordinary.ok("--rootless", "true", "list")
    assert "--rootless: true is not the case" in command.refused("--rootless", "true", "list")
    command.ok("--rootless", "false", "list")


def test_podman_of_an_ordinary_user(ordinary: Ordinary) -> None:
    """podman without root runs, executes and removes containers with it, also with a copied-up tmpfs."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    home = ordinary.folder
    (home / "containers.conf").write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
    options = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", f"--root={home}/storage"]
    options += [f"--runroot={home}/run/r", f"--runtime={ordinary.path}", "--log-level=error"]
    user = ordinary.user()
    user["env"] |= {"HOME": str(home), "CONTAINERS_CONF": str(home / "containers.conf")}

    def podman(*words: str) -> str:
        line = ["podman", *options, *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **user)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    with contextlib.ExitStack() as stack:
        common = ("--network=host", "--rootfs", str(ordinary.rootfs))
        out = podman("run", "--rm", "--tmpfs=/etc", *common, "sh", "-c", "id -u; head -1 /etc/group")
        assert out == "0\nroot:x:0:\n"
        stack.callback(podman, "rm", "--force", "--time=0", "x")
        podman("run", "--detach", "--name=x", *common, "sleep", "1000")
        assert podman("exec", "x", "cat", "/proc/1/comm") == "sleep\n"
