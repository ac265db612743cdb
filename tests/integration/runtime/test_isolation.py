"""What a container sees, may do, and is limited to."""

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import client, defaults, errors, state
from tests.integration.runtime.conftest import Box, wait_until
from tests.support import groups

pytestmark = pytest.mark.root

DOCKER_DEFAULT_CAPABILITIES = "00000000a80425fb"


def test_default_privileges(box: Box) -> None:
    """The 14 capabilities in three sets, none to inherit, and no new privileges."""
    status = dict(line.split(":", 1) for line in box.run("a", "cat", "/proc/self/status").splitlines() if ":" in line)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert status[name].strip() == DOCKER_DEFAULT_CAPABILITIES, name
    for name in ("CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"].strip() == "1"
    assert (status["SigIgn"].strip(), status["SigBlk"].strip()) == ("0" * 16, "0" * 16)


@pytest.fixture
def ignored() -> Iterator[None]:
    """Signal 32 is ignored, as posix_spawn leaves it in the programs that make starts."""
    before = ctypes.create_string_buffer(32)
    rt_sigaction = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
    libc, ignore = ctypes.CDLL(None, use_errno=True), struct.pack("QQQQ", signal.SIG_IGN, 0, 0, 0)
    assert libc.syscall(rt_sigaction, 32, ignore, before, 8) == 0
    yield
    assert libc.syscall(rt_sigaction, 32, before, None, 8) == 0


def test_what_the_launchers_parent_ignored_is_not_ignored_inside(
    ignored: None, image: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    del ignored
    box = Box(image, tmp_path, f"{os.getpid()}-ignored")
    request.addfinalizer(box.close)
    assert box.run("a", "grep", "SigIgn", "/proc/self/status").split() == ["SigIgn:", "0" * 16]


def test_own_namespaces(box: Box) -> None:
    """Process 1, an own host name, only `lo`, which is up, and nothing of the host's mounts."""
    script = "echo $$; hostname; ls /sys/class/net; cat /proc/mounts; ip link show lo; ls -l /proc/self/ns"
    out = box.run("a", "sh", "-c", script)
    lines = out.splitlines()
    assert lines[:3] == ["1", "a", "lo"]
    assert "UP,LOWER_UP" in out
    assert "/dev/vda" not in out
    for kind in ("pid", "mnt", "net", "uts", "ipc", "cgroup"):
        assert str(Path(f"/proc/self/ns/{kind}").readlink()) not in out, kind


def test_masked_and_readonly_paths(box: Box) -> None:
    """Masked files are empty, masked folders too, and /proc/sys cannot be written."""
    script = (
        "cat /proc/keys /proc/timer_list /proc/interrupts; ls -A /sys/firmware /proc/acpi /proc/scsi 2>/dev/null;"
        f"for f in /proc/sys/kernel/domainname /proc/sysrq-trigger {groups.inside('pids')}/cgroup.procs; do"
        f" (echo 1 > $f) 2>/dev/null && echo wrote $f; done;"
        f"mkdir {groups.inside('pids')}/y 2>/dev/null && echo made; :"
    )
    out = box.run("a", "sh", "-c", script)
    assert not [line for line in out.splitlines() if line and not line.startswith("/")], out
    assert "wrote" not in out


def test_minimal_dev(box: Box) -> None:
    """The standard nodes and links, a private devpts and shm; the host's disk cannot be opened even when made."""
    out = box.run("a", "sh", "-c", "ls /dev; mknod /disk b 254 0 && (cat /disk >/dev/null) 2>&1; echo x > /dev/null")
    nodes = set(out.split("cat:")[0].split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd"} <= nodes
    assert not nodes & {"vda", "kmsg", "mem"}
    assert "Operation not permitted" in out


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"username": "app"}, "uid=1000(app) gid=1001(app) groups=29(audio),44(video)"),
        ({"username": "app:video"}, "uid=1000(app) gid=44(video)"),
        ({"username": "1000"}, "uid=1000(app) gid=1001(app) groups=29(audio),44(video)"),
        ({"username": "4242:77"}, "uid=4242 gid=77"),
        ({"uid": 5, "gid": 6, "additionalGids": [7]}, "uid=5 gid=6 groups=7"),
    ],
)
def test_user(box: Box, user: dict[str, Any], expected: str) -> None:
    """Users by name and number have the container's own groups, no capabilities, and a writable stdout."""

    def change(config: dict[str, Any]) -> None:
        config["process"]["user"] = user

    script = "id; grep CapEff /proc/self/status; echo again > /dev/stdout; echo $HOME"
    lines = box.run("a", "sh", "-c", script, change=change).splitlines()
    groups = {word for word in lines[0].split() if word.startswith("groups")}
    wanted = expected.split()
    assert lines[0].split()[:2] == wanted[:2]
    listed = {item for word in groups for item in word.removeprefix("groups=").split(",")}
    for item in wanted[2].removeprefix("groups=").split(",") if len(wanted) > 2 else ():
        assert item in listed
    assert "0(root)" not in listed
    assert lines[1].split()[1] == "0" * 16
    assert lines[2] == "again"
    assert lines[3] == ("/home/app" if "1000" in expected else "/")


def test_unknown_user_is_refused(box: Box) -> None:
    """The message names the user and the file that was looked at."""
    config = box.config("a", "true")
    config["process"]["user"] = {"username": "nobodyhere"}
    with pytest.raises(errors.SetupFailed, match=r"'nobodyhere'.*/etc/passwd"):
        box.create("a", config)


LIMITS = (
    {
        ("memory", "memory.max"): str(64 << 20),
        ("memory", "memory.swap.max"): str(16 << 20),
        ("cpu", "cpu.weight"): "20",
        ("cpu", "cpu.max"): "50000 100000",
        ("cpuset", "cpuset.cpus"): "0",
        ("pids", "pids.max"): "17",
    }
    if groups.V2
    else {
        ("memory", "memory.limit_in_bytes"): str(64 << 20),
        ("memory", "memory.memsw.limit_in_bytes"): str(80 << 20),
        ("cpu", "cpu.shares"): "512",
        ("cpu", "cpu.cfs_quota_us"): "50000",
        ("cpu", "cpu.cfs_period_us"): "100000",
        ("cpuset", "cpuset.cpus"): "0",
        ("pids", "pids.max"): "17",
    }
)


def test_limits_are_set_and_seen(box: Box) -> None:
    """Memory, CPU and pids limits are in the cgroup, which is the root of the container's view."""
    memory = f"{groups.inside('memory')}/{next(file for controller, file in LIMITS if controller == 'memory')}"
    config = box.config("a", "sh", "-c", f"cat {memory} /proc/self/cgroup; echo all; sleep 100")
    config["linux"]["resources"] |= {
        "memory": {"limit": 64 << 20, "swap": 80 << 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 17},
    }
    box.create("a", config)
    for (controller, file), value in LIMITS.items():
        assert (groups.folder(controller, f"{box.parent}/a") / file).read_text().strip() == value, file
    assert client.cgroup(box.root, "a").stats().memory_limit_bytes == 64 << 20
    wait_until(lambda: "all" in box.log_path("a").read_text(), "the container has written")
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGKILL)
        monitor.wait(10)
    assert box.output("a").splitlines()[0] == str(64 << 20)
    assert "orch" not in box.output("a")


def test_oom_kill_is_reported(box: Box) -> None:
    """A container that exceeds its memory is killed, and the exit says so."""
    config = box.config("a", "sh", "-c", "exec tail /dev/zero")
    config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    box.create("a", config)
    ended = box.ended("a")
    assert ended.oom_killed
    assert (ended.exit_code, ended.signal) == (137, signal.SIGKILL)
    assert ended.oom_kills >= 1


def test_rlimits(box: Box) -> None:
    """Lowered limits are in effect; one that cannot be raised is refused by name."""
    config = box.config("a", "sh", "-c", "ulimit -n; ulimit -Hn")
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]
    box.create("a", config)
    box.ended("a")
    assert box.output("a").split() == ["123", "456"]
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 2**40}]
    with pytest.raises(errors.SetupFailed, match=r"RLIMIT_NOFILE cannot be set to soft 123.*ask for less"):
        box.create("b", config)


def test_environment_and_folder(box: Box) -> None:
    """Variables, working directory (made when it is missing) and umask are as asked for."""

    def change(config: dict[str, Any]) -> None:
        config["process"] |= {"cwd": "/made/here", "user": {"uid": 0, "gid": 0, "umask": 0o077}}
        config["process"]["env"].append("GREETING=hello there")

    out = box.run("a", "sh", "-c", "pwd; echo $GREETING; echo $HOME; umask; ls /proc/self/fd", change=change)
    assert out.splitlines()[:4] == ["/made/here", "hello there", "/root", "0077"]
    assert out.split("0077\n")[1].split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


def test_sysctl(box: Box) -> None:
    """Kernel parameters of the container's namespaces are set; others are refused."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["sysctl"] |= {"net.ipv4.ip_forward": "1", "kernel.shmmni": "7"}

    out = box.run("a", "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmni", change=change)
    assert out.split() == ["1", "7"]
    config = box.config("b", "true")
    config["linux"]["sysctl"]["vm.swappiness"] = "1"
    with pytest.raises(errors.InvalidSpec, match=r"linux.sysctl\[vm.swappiness\]"):
        box.create("b", config)


def test_network_namespace_is_kept(box: Box, tmp_path: Path) -> None:
    """Two containers, one after the other, join the same pinned namespace; deleting it twice is fine."""
    path = str(tmp_path / "net")
    box.launcher.create_network(path)

    def change(config: dict[str, Any]) -> None:
        namespaces = config["linux"]["namespaces"]
        next(entry for entry in namespaces if entry["type"] == "network")["path"] = path

    seen = [box.run(name, "readlink", "/proc/self/ns/net", change=change) for name in ("a", "b")]
    assert seen[0] == seen[1]
    assert seen[0] != str(Path("/proc/self/ns/net").readlink())
    with pytest.raises(errors.SetupFailed, match="File exists"):
        box.launcher.create_network(path)
    box.launcher.delete_network(path)
    box.launcher.delete_network(path)
    assert path not in Path("/proc/self/mountinfo").read_text()


def test_the_interpreter_is_out_of_reach(box: Box) -> None:
    """/proc/self/exe of a starting or joining process is a sealed copy, and no file of the host."""
    box.create("a", box.config("a", "sleep", "100"))
    pid = state.load(box.root, "a").monitor_pid
    assert str(Path(f"/proc/{pid}/exe").readlink()).startswith("/memfd:")
    with box.monitor("a") as monitor, pytest.raises(errors.ProgramNotFound, match="interpreter"):
        monitor.execute({"args": ["/proc/self/exe"]})
    with pytest.raises(errors.ProgramNotFound, match="interpreter"):
        box.create("b", box.config("b", "/proc/self/exe"))


def test_a_joining_process_gives_nothing_away(box: Box) -> None:
    """A container that looks at every process again and again never gets hold of one that is not its own."""
    script = (
        "while [ ! -e /stop ]; do for p in /proc/[0-9]*; do"
        " for f in exe fd/0 root cwd; do readlink $p/$f; done; done; done | grep -E 'python|memfd|/work|socket:|host'"
    )
    box.create("a", box.config("a", "sh", "-c", script))
    with box.monitor("a") as monitor:
        for _ in range(20):
            number, _, _ = monitor.execute({"args": ["true"]})
            monitor.wait_exec(number, 10)
        monitor.execute({"args": ["touch", "/stop"]})
        assert monitor.wait(20).exit_code == 1  # grep found nothing
    assert not box.output("a")


def test_defaults_are_dockers() -> None:
    """The default configuration never shares its lists between containers."""
    first = defaults.config(["true"], cgroups_path="/orch/a")
    first["mounts"].clear()
    first["linux"]["maskedPaths"].clear()
    second = defaults.config(["true"], cgroups_path="/orch/a")
    assert second["mounts"]
    assert second["linux"]["maskedPaths"]
