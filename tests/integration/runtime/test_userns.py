"""Containers in user namespaces: root inside is nobody outside, and the files on disk say what the container sees."""

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, errors, state
from tests.integration.runtime.conftest import Box
from tests.integration.runtime.test_exec import execute
from tests.support import groups

pytestmark = pytest.mark.root

FIRST = 1 << 20
NS_GET_USERNS = 0xB701
NAMESPACES = ("mnt", "net", "uts", "ipc", "cgroup", "pid")


def mapped(config: dict[str, Any]) -> None:
    defaults.give_user_namespace(config, first_id=FIRST)


def powerful(config: dict[str, Any]) -> None:
    """All capabilities and no filter: what is refused then is refused by the user namespace alone."""
    mapped(config)
    everything = [f"CAP_{name}" for name in ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "MKNOD", "DAC_READ_SEARCH")]
    wanted = [*defaults.CAPABILITIES, *everything]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), wanted)
    del config["linux"]["seccomp"]


def running(box: Box, change: Any = mapped) -> int:
    """A container that sleeps; the pid of its first process."""
    config = box.config("a", "sleep", "1000")
    change(config)
    box.create("a", config, start=True)
    return state.load(box.root, "a").pid


def owner_of(pid: int, kind: str) -> tuple[int, int]:
    """The user namespace that a namespace of a process belongs to (ioctl_ns(2))."""
    fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    owner = fcntl.ioctl(fd, NS_GET_USERNS)
    found = os.fstat(owner)
    os.close(owner)
    os.close(fd)
    return found.st_dev, found.st_ino


def test_root_inside_is_nobody_outside(box: Box) -> None:
    """Ids are 0 inside and of the range outside, and every other namespace belongs to the user namespace."""
    pid = running(box)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == [str(FIRST)] * 4
    assert status["Groups"].strip() == ""
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(FIRST), "65536"]
    assert execute(box, "a", "id") == (0, "uid=0(root) gid=0(root)\n")
    own = Path(f"/proc/{pid}/ns/user").stat()
    assert {owner_of(pid, kind) for kind in NAMESPACES} == {(own.st_dev, own.st_ino)}


def test_files_on_disk_have_the_containers_ids(box: Box) -> None:
    """Layers are shared as they are, and what is written could be committed: setuid bits and all."""
    script = (
        "stat -c '%u:%g' /etc/passwd; touch /new; mkdir /folder; chown 1000:44 /folder; cp /bin/busybox /su;"
        "chmod 4755 /su; chmod 600 /etc/group; rm /etc/passwd; ln -s x /link; chown -h 7:8 /link"
    )
    assert box.run("a", "sh", "-c", script, change=mapped) == "0:0"
    upper = box.folder / "a/upper"
    ids = {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in upper.iterdir()}
    assert ids == {"new": (0, 0), "folder": (1000, 44), "su": (0, 0), "etc": (0, 0), "link": (7, 8)}
    assert stat.S_IMODE((upper / "su").stat().st_mode) == 0o4755
    assert stat.S_ISCHR((upper / "etc/passwd").stat().st_mode)  # a whiteout
    assert (upper / "etc/group").stat().st_uid == 0


def test_two_containers_share_layers_but_no_ids(box: Box) -> None:
    """The same file is root's in both, and neither may touch what belongs to the other."""
    running(box)
    config = box.config("b", "sh", "-c", "stat -c '%u' /bin/busybox; cat /proc/self/uid_map")
    defaults.give_user_namespace(config, first_id=FIRST + 65536)
    box.create("b", config)
    assert box.ended("b").exit_code == 0
    assert box.output("b").split() == ["0", "0", str(FIRST + 65536), "65536"]


def test_setuid_program_of_the_image_works(box: Box, tmp_path: Path) -> None:
    """An ordinary user becomes the container's root by it, when new privileges are allowed."""
    box.image = Path(shutil.copytree(box.image, tmp_path / "image", symlinks=True))
    (box.image / "bin/busybox").chmod(0o4755)
    (box.image / "etc/passwd").write_text("root::0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n")

    def change(config: dict[str, Any]) -> None:
        mapped(config)
        config["process"].update(user={"username": "app"}, noNewPrivileges=False)

    out = box.run("a", "sh", "-c", "id -u; su -c 'id -u; cat /proc/self/uid_map'", change=change)
    assert out.split() == ["1000", "0", "0", str(FIRST), "65536"]


def test_exec_is_in_the_user_namespace(box: Box) -> None:
    """As root and as others, with their groups, and with pipes that may be opened again by name."""
    first = running(box)
    code, out = execute(box, "a", "sh", "-c", "id; echo again > /dev/stdout", user={"username": "app"})
    assert (code, out) == (0, "uid=1000(app) gid=1001(app) groups=29(audio),44(video)\nagain\n")
    with box.monitor("a") as monitor:
        _, pid, _ = monitor.execute({"args": ["sleep", "1000"]})
    assert Path(f"/proc/{pid}").stat().st_uid == FIRST
    for kind in ("user", *NAMESPACES):
        assert Path(f"/proc/{pid}/ns/{kind}").stat().st_ino == Path(f"/proc/{first}/ns/{kind}").stat().st_ino, kind


def test_exec_with_a_terminal(box: Box) -> None:
    running(box)
    with box.monitor("a") as monitor:
        number, _, master = monitor.execute({"args": ["sh", "-c", "tty; stat -c %u $(tty)"], "terminal": True})
        assert monitor.wait_exec(number, 10) == 0
        assert master is not None
        said = b""
        with contextlib.suppress(OSError):  # as a terminal ends that nobody has open any more
            while more := os.read(master, 4096):  # a program's writes are not kept together
                said += more
        assert said.split() == [b"/dev/pts/0", b"0"]
        os.close(master)


def test_output_and_first_terminal(box: Box) -> None:
    """The log's pipes and the console belong to whoever the program runs as."""

    def as_user(config: dict[str, Any]) -> None:
        mapped(config)
        config["process"]["user"] = {"username": "app"}

    assert box.run("a", "sh", "-c", "echo one > /dev/stdout; echo two > /dev/stderr", change=as_user).split() == [
        *("one", "two")
    ]

    def with_terminal(config: dict[str, Any]) -> None:
        as_user(config)
        config["process"]["terminal"] = True

    assert "1000" in box.run("b", "sh", "-c", "stat -c %u $(tty); ls -l /dev/console", change=with_terminal)


def test_several_ranges(box: Box) -> None:
    """Each range is where it was put; an id without one is refused with its name."""

    def change(config: dict[str, Any]) -> None:
        mapped(config)
        lines = [(0, FIRST, 1), (1000, 5000, 2), (3000, FIRST + 10, 10)]
        config["linux"]["uidMappings"] = [
            {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in lines
        ]

    running(box, change)
    with box.monitor("a") as monitor:
        for uid, outside in ((0, FIRST), (1001, 5001), (3009, FIRST + 19)):
            _, pid, _ = monitor.execute({"args": ["sleep", "100"], "user": {"uid": uid, "gid": 0}})
            assert Path(f"/proc/{pid}").stat().st_uid == outside
        with pytest.raises(errors.SetupFailed, match=r"become user 2000, group 0: not in the mappings"):
            monitor.execute({"args": ["true"], "user": {"uid": 2000, "gid": 0}})


def test_idmapped_binds(box: Box, tmp_path: Path) -> None:
    """A folder and a file of the host keep their ids on disk, and are the container's inside."""
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("")
    os.chown(tmp_path / "file", 33, 34)
    own = [{"containerID": 33, "hostID": FIRST + 1000, "size": 1}, {"containerID": 0, "hostID": FIRST, "size": 1}]

    def change(config: dict[str, Any]) -> None:
        mapped(config)
        config["mounts"] += [
            {"destination": "/data", "source": str(tmp_path / "data"), "options": ["rbind", "ridmap"]},
            {"destination": "/file", "source": str(tmp_path / "file"), "options": ["bind", "idmap"]},
            {"destination": "/plain", "source": str(tmp_path / "file"), "options": ["bind"]},
            {
                "destination": "/own",
                "source": str(tmp_path / "file"),
                "options": ["bind"],
                "uidMappings": own,
                "gidMappings": [{"containerID": 0, "hostID": FIRST, "size": 65536}],
            },
        ]

    script = "stat -c %u:%g /data /file /plain /own; touch /data/new; chown 1000 /data/new; echo x > /file"
    out = box.run("a", "sh", "-c", script, change=change)
    assert out.split() == ["0:0", "33:34", "65534:65534", "1000:34"]
    assert (tmp_path / "data/new").stat().st_uid == 1000
    assert (tmp_path / "file").read_text() == "x\n"


def test_what_cannot_be_idmapped_is_refused(box: Box) -> None:
    config = box.config("a", "true")
    mapped(config)
    config["mounts"].append({"destination": "/x", "source": "/proc", "options": ["bind", "idmap"]})
    with pytest.raises(errors.SetupFailed, match=r"mounts\[7\]: /proc cannot be idmapped: its file system"):
        box.create("a", config)


def test_a_plain_root_is_idmapped_unless_it_has_the_containers_ids(box: Box, tmp_path: Path) -> None:
    """A bundle that somebody chowned to the mapped ids works as well as one that nobody did."""
    for name, uid in (("a", 0), ("b", FIRST)):
        root = tmp_path / name
        shutil.copytree(box.image, root, symlinks=True)
        for path in (root, *root.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
        config = box.config(name, "sh", "-c", "stat -c %u /bin/busybox; touch /new")
        mapped(config)
        config["root"]["path"] = str(root)
        box.create(name, config, overlay=None)
        assert box.ended(name).exit_code == 0, box.output(name)
        assert box.output(name) == "0"
        assert (root / "new").stat().st_uid == uid


def test_one_process_is_enough(box: Box) -> None:
    """The process that goes between takes no place of the container's limit."""

    def change(config: dict[str, Any]) -> None:
        mapped(config)
        config["linux"]["resources"]["pids"]["limit"] = 1

    assert box.run("a", "id", "-u", change=change) == "0"


def test_devices(box: Box) -> None:
    """The standard nodes work, others are the owner's that was asked for, and none can be made."""

    def change(config: dict[str, Any]) -> None:
        powerful(config)
        config["linux"]["devices"] = [
            {"path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 7, "gid": 8}
        ]

    script = (
        "for n in null zero full random urandom tty; do stat -c '%t:%T %u:%g %a' /dev/$n; done;"
        "echo x > /dev/null; head -c 8 /dev/urandom | wc -c; stat -c '%t:%T %u:%g %a' /dev/deep/zero;"
        "mknod /node c 1 3 2>/dev/null || echo refused"
    )
    lines = box.run("a", "sh", "-c", script, change=change).splitlines()
    assert lines[:6] == [f"{node} 0:0 666" for node in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0")]
    assert lines[6:8] == ["8", "1:5 7:8 600"]
    assert lines[-1] == "refused"


def test_powers_end_at_the_own_namespaces(box: Box) -> None:
    """With every capability: its own network and mounts obey, nothing of the host does."""
    canary = box.folder / "canary"
    canary.mkdir(mode=0o755)
    (canary / "file").write_text("the host's")
    (canary / "file").chmod(0o644)

    def change(config: dict[str, Any]) -> None:
        powerful(config)
        config["mounts"].append({"destination": "/host", "source": str(canary), "options": ["bind", "rw"]})
        config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"] = [], []

    script = (
        "ip addr add 10.9.8.7/24 dev lo && ip addr show lo | grep -c 10.9.8.7;"
        "mkdir /m && mount -t tmpfs tmpfs /m && echo mounted;"
        "mkdir /c && (mount -t cgroup -o memory cgroup /c || mount -t cgroup2 cgroup /c) 2>/dev/null"
        " && find /c -name release_agent -exec sh -c 'echo /x > {} && echo agent' ';' ;"
        "(echo x > /host/file) 2>/dev/null && echo wrote; chown 0 /host/file 2>/dev/null && echo chowned;"
        "touch /host/new 2>/dev/null && echo made; mount -o remount,rw /sys 2>/dev/null;"
        "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo sysctl;"
        "(echo b > /proc/sysrq-trigger) 2>/dev/null && echo sysrq;"
        "(echo core > /proc/sys/kernel/core_pattern) 2>/dev/null && echo pattern;"
        "(echo -1000 > /proc/self/oom_score_adj) 2>/dev/null && echo oom;"
        "hostname other && hostname"
    )
    host = os.uname().nodename
    lines = box.run("a", "sh", "-c", script, change=change).splitlines()
    assert lines == ["1", "mounted", "other"]
    assert os.uname().nodename == host
    assert (canary / "file").read_text() == "the host's"
    assert [path.name for path in canary.iterdir()] == ["file"]


def test_a_shared_network_is_not_the_containers(box: Box) -> None:
    """In the host's network namespace it may see but not change, and /sys still works."""

    def change(config: dict[str, Any]) -> None:
        powerful(config)
        linux = config["linux"]
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
        del linux["sysctl"]

    script = (
        "ip addr add 10.9.8.7/24 dev lo 2>/dev/null && echo changed; ls /sys/class/net; ping -c 1 127.0.0.1 | wc -l"
    )
    out = box.run("a", "sh", "-c", script, change=change).split()
    assert "changed" not in out
    assert "lo" in out


def test_ping_and_low_ports(box: Box) -> None:
    """Raw sockets and the kernel parameters of the own network work, also for an ordinary user."""

    def change(config: dict[str, Any]) -> None:
        mapped(config)
        config["process"]["user"] = {"username": "app"}

    script = (
        # A server that has nothing to say would hang up before it was told anything.
        "(sleep 60 | nc -l -p 80 > /tmp/got &); until echo hi | nc 127.0.0.1 80 2>/dev/null; do usleep 20000; done;"
        "until [ -s /tmp/got ]; do usleep 20000; done; cat /tmp/got; cat /proc/sys/net/ipv4/ping_group_range"
    )
    assert box.run("a", "sh", "-c", "ping -c 1 127.0.0.1 >/dev/null && echo pong", change=mapped) == "pong"
    assert box.run("b", "sh", "-c", script, change=change).split() == ["hi", "0", "65535"]


def test_a_user_namespace_is_joined_by_its_path(box: Box) -> None:
    """With or without mappings beside the path; those that are not its own are refused."""
    pid = running(box)
    for name, given in (("b", True), ("c", False)):
        config = box.config(name, "sh", "-c", "touch /new; readlink /proc/self/ns/user; id -u")
        defaults.give_user_namespace(config, first_id=FIRST, path=f"/proc/{pid}/ns/user")
        if not given:
            del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
        box.create(name, config)
        assert box.ended(name).exit_code == 0, box.output(name)
        assert box.output(name).split() == [f"user:[{Path(f'/proc/{pid}/ns/user').stat().st_ino}]", "0"]
        assert (box.folder / name / "upper/new").stat().st_uid == 0
    config = box.config("d", "true")
    defaults.give_user_namespace(config, first_id=FIRST + 1, path=f"/proc/{pid}/ns/user")
    with pytest.raises(errors.InvalidSpec, match=r"linux\.uidMappings: the user namespace .* has others"):
        box.create("d", config)


def test_a_failed_start_leaves_nothing(box: Box) -> None:
    """Before the process enters the user namespace, after that, and when its program is missing."""
    for number, change in enumerate(
        (
            {"process": {"args": ["/missing"]}},
            {"mounts": [{"destination": "/x", "source": "/not/there", "options": ["bind"]}]},
            {"mounts": [{"destination": "/x", "type": "nofs"}]},
        )
    ):
        config = box.config(f"a{number}", "true")
        mapped(config)
        for key, value in change.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else config[key] + value
        with pytest.raises(errors.SetupFailed):
            box.create(f"a{number}", config)
        assert not Path(box.root, f"a{number}").exists()
        assert groups.below(box.parent) == []
