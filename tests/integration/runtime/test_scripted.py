"""Containers that a script sets up are the same as those that Python sets up, but for the time that it takes."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import client, defaults, errors
from runtime.script import machine
from tests.integration.runtime.conftest import Box, wait_until
from tests.integration.runtime.test_exec import execute
from tests.support import groups
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(not machine.SUPPORTED, reason="the machine code is x86-64's")]

REPOSITORY = Path(__file__).parents[3]

Change = Callable[[dict[str, Any], Path], None]

LOOK = r"""
exec 2>&1
id; pwd; env | sort; umask; ulimit -a; hostname
grep -E 'Uid|Gid|Groups|NSpid|Cap|NoNew|Seccomp|Sig[^Q]|Umask' /proc/self/status
cut -d' ' -f1,4-6 /proc/self/stat
cat /proc/self/uid_map /proc/self/gid_map /proc/self/oom_score_adj /proc/self/cgroup /proc/1/comm
cut -d' ' -f4- /proc/self/mountinfo | sort
stat -c '%n %A %u %g' / /* /etc/*
ls -ln /dev /dev/pts /dev/shm /proc/acpi /proc/scsi /sys/firmware /sys/fs/cgroup /mnt /tmp
ls /proc/self/fd
readlink /proc/self/fd/0
cat /proc/kcore /proc/keys | wc -c
ip link show lo; ls /sys/class/net; cat /sys/class/net/*/mtu
for name in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range; do cat /proc/sys/$name; done
for place in /proc/sys/kernel/domainname /sys/x /new /proc/sysrq-trigger; do echo x >$place; done
cat /dev/null; head -c 4 /dev/zero | wc -c; echo x >/dev/full
"""


def nothing(config: dict[str, Any], folder: Path) -> None:  # the others take both
    """The default container."""


def user_namespace(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    defaults.give_user_namespace(config, first_id=1 << 20)


def user_namespace_and_user(config: dict[str, Any], folder: Path) -> None:
    defaults.give_user_namespace(config, first_id=1 << 20)
    user(config, folder)


def user(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o027}
    config["process"]["capabilities"]["inheritable"] = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
    config["process"]["capabilities"]["ambient"] = ["CAP_NET_BIND_SERVICE"]


def named_user(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    config["process"]["user"] = {"username": "root"}


def limits(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    process = config["process"]
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    process["oomScoreAdj"] = 500
    config["linux"]["resources"]["memory"] = {"limit": 64 << 20}


def limits_in_user_namespace(config: dict[str, Any], folder: Path) -> None:
    defaults.give_user_namespace(config, first_id=1 << 20)
    limits(config, folder)


def closed(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    config["root"]["readonly"] = True
    config["process"]["capabilities"] = {}
    config["domainname"] = "domain"
    config["process"]["env"] = ["A=b", "HOME=/nowhere", "PATH=/nowhere:/bin"]
    config["linux"]["maskedPaths"] += ["/etc/group", "/bin/busybox-is-not-there"]
    config["linux"]["readonlyPaths"] += ["/etc"]


def open_wide(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    config["process"]["noNewPrivileges"] = False
    config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
    wanted = [*defaults.CAPABILITIES, "CAP_SYS_ADMIN", "CAP_NET_ADMIN"]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), wanted)


def privileges_may_grow(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    config["process"]["noNewPrivileges"] = False


def unfiltered(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    del config["linux"]["seccomp"]


def mounts(config: dict[str, Any], folder: Path) -> None:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source/file").write_text("file\n")
    source = str(folder / "source")
    config["mounts"] += [
        {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m", "mode=700"]},
        {"destination": "/data/deep", "type": "bind", "source": source, "options": ["rbind", "ro", "nodev"]},
        {"destination": "/etc/hosts", "type": "bind", "source": f"{source}/file", "options": ["bind"]},
        {"destination": "/dev/extra", "type": "bind", "source": f"{source}/file", "options": ["bind", "rprivate"]},
        {"destination": "/slave", "type": "bind", "source": source, "options": ["rbind", "rslave"]},
    ]
    config["process"]["cwd"] = "/made/for/it"


def mounts_in_user_namespace(config: dict[str, Any], folder: Path) -> None:
    mounts(config, folder)
    defaults.give_user_namespace(config, first_id=1 << 20)


def device(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    config["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 3, "fileMode": 0o640}
    ]


def joined_namespaces(config: dict[str, Any], folder: Path) -> None:
    """As the agent's tasks are: a network and its owner that are there before, and stay."""
    defaults.give_user_namespace(config, first_id=1 << 20, path=str(folder / "user"))
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = str(folder / "net")
    config["linux"]["sysctl"] = {"net.ipv4.ping_group_range": "1048576 1048580", "net.ipv4.ip_default_ttl": "77"}


def joined_user_namespace_without_mappings(config: dict[str, Any], folder: Path) -> None:
    joined_namespaces(config, folder)
    del config["linux"]["uidMappings"], config["linux"]["gidMappings"]


def joined_network(config: dict[str, Any], folder: Path) -> None:
    """In a new user namespace, to which the network does not belong."""
    defaults.give_user_namespace(config, first_id=1 << 20)
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = str(folder / "net")
    config["linux"]["sysctl"] = {}


def pids_of_the_host(config: dict[str, Any], folder: Path) -> None:  # noqa: ARG001
    """Only what is the same twice: the pids are not."""
    linux = config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "pid"]
    config["process"]["args"] = [
        "sh",
        "-c",
        "id; cut -d' ' -f4- /proc/self/mountinfo | sort; grep Cap /proc/self/status",
    ]


CHANGES: list[Change] = [
    nothing,
    user_namespace,
    user_namespace_and_user,
    user,
    named_user,
    limits,
    limits_in_user_namespace,
    closed,
    open_wide,
    privileges_may_grow,
    unfiltered,
    mounts,
    mounts_in_user_namespace,
    device,
    joined_namespaces,
    joined_user_namespace_without_mappings,
    joined_network,
    pids_of_the_host,
]


def seen(box: Box, name: str, folder: Path, change: Change, *, script: bool) -> str:
    """What a container sees of itself."""
    config = defaults.config(["sh", "-c", LOOK], cgroups_path=f"{box.parent}/{name}", hostname="same")
    change(config, folder)
    if not script:
        config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    made = box.create(name, config)
    assert made["scripted"] == script, "it was made the other way"
    ended = box.ended(name)
    assert ended.exit_code in {0, 1}, box.output(name)
    # Names, times, and numbers of devices are each one's own.
    text = box.output(name).replace(f"/{name}", "/NAME").replace(f"{folder}", "FOLDER")
    text = re.sub(r"[A-Z][a-z]{2} +\d+ [0-9:]{5}", "WHEN", text)
    text = re.sub(r"(lowerdir|upperdir|workdir)\+?=[^,\n]*", r"\1", text)
    text = re.sub(r",[ug]id=1048576", "", text)  # of tmpfs, if its owner is not who made it
    text = re.sub(r"pipe:\[\d+\]", "pipe", text)
    return re.sub(r"shared:\d+|master:\d+", "peer", text)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_script_makes_the_same_container(box: Box, tmp_path: Path, change: Change) -> None:
    """Ids, rights, limits, mounts, files, devices, kernel parameters and streams: all that can be seen from inside."""
    ids = [{"containerID": 0, "hostID": 1 << 20, "size": 65536}]
    pins = str(tmp_path / "net"), {"path": str(tmp_path / "user"), "uidMappings": ids, "gidMappings": ids}
    box.launcher.create_network(pins[0], owner=pins[1])
    try:
        one = seen(box, "script", tmp_path, change, script=True)
        other = seen(box, "python", tmp_path, change, script=False)
    finally:
        box.launcher.delete_network(pins[0], owner=pins[1]["path"])
    assert one.splitlines() == other.splitlines()
    assert len(one.splitlines()) > 10


def test_a_network_that_is_there_is_joined(box: Box, tmp_path: Path) -> None:
    """The agent's containers start in a network namespace with an address."""
    path = str(tmp_path / "net")
    box.launcher.create_network(path)
    try:
        config = box.config("a", "sleep", "100")
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = path
        made = box.create("a", config)
        assert made["scripted"]
        assert Path(f"/proc/{made['pid']}/ns/net").stat().st_ino == Path(path).stat().st_ino
    finally:
        box.delete("a", force=True)
        box.launcher.delete_network(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["process"].update(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 5}),
        lambda config: config["linux"].update(personality={"domain": "LINUX32"}),
        lambda config: config["linux"].update(rootfsPropagation="private"),
        lambda config: config["linux"]["namespaces"].append({"type": "time"}),
        lambda config: config["mounts"].append({"destination": "/etc", "type": "tmpfs", "options": ["tmpcopyup"]}),
        lambda config: config.update(annotations={"orch.init": "true"}),
    ],
)
def test_what_is_unusual_is_left_to_python(box: Box, change: Callable[[dict[str, Any]], None]) -> None:
    """A field that scripts do not know is never left out."""
    config = box.config("a", "true")
    change(config)
    assert not box.create("a", config)["scripted"]
    assert box.ended("a").exit_code == 0


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (["/bin/nowhere"], errors.ProgramNotFound),
        (["nowhere"], errors.ProgramNotFound),
        (["/etc"], errors.ProgramNotExecutable),
        (["/etc/passwd"], errors.ProgramNotExecutable),
    ],
)
def test_what_fails_in_a_script_is_explained(box: Box, args: list[str], kind: type[Exception]) -> None:
    """By the other way, and nothing is left of either."""
    config = box.config("a", *args)
    for _ in range(3):
        with pytest.raises(kind, match=args[0]):
            box.create("a", config)
        assert [path.name for path in Path(box.root).iterdir()] == ["@seccomp"]
        assert groups.below(box.parent) == []


def test_what_a_script_cannot_do_is_done_the_other_way(box: Box) -> None:
    """A link in the place of a mount is followed inside the root, which a script refuses to do."""
    config = box.config("a", "cat", "/var/place/file")
    folder = box.folder / "a/upper/var"
    overlay_of_a = box.overlay("a")
    folder.mkdir()
    (folder / "place").symlink_to("/elsewhere")
    (box.folder / "source").mkdir()
    (box.folder / "source/file").write_text("found\n")
    mount = {"destination": "/var/place", "type": "bind", "source": str(box.folder / "source"), "options": ["bind"]}
    config["mounts"].append(mount)
    made = box.create("a", config, overlay=overlay_of_a)
    assert not made["scripted"]
    box.ended("a")
    assert box.output("a") == "found"
    assert (box.folder / "a/upper/elsewhere").is_dir()


def test_the_host_hears_of_no_mounts(box: Box) -> None:
    """A container of a script is in a mount namespace of its own, whose mounts nobody else has."""
    places = [Path("/proc/self/mountinfo"), Path(f"/proc/{box.launcher.ping()}/mountinfo")]
    before = [place.read_text().count("\n") for place in places]
    assert box.create("a", box.config("a", "sleep", "100"))["scripted"]
    assert [place.read_text().count("\n") for place in places] == before


@pytest.mark.parametrize("change", [nothing, user_namespace], ids=lambda change: change.__name__)
def test_further_processes_are_where_the_first_is(box: Box, change: Change) -> None:
    """A monitor that cloned its first process forks the others into the same namespaces, each time."""
    config = box.config("a", "sleep", "100")
    change(config, box.folder)
    assert box.create("a", config)["scripted"]
    for _ in range(2):
        assert execute(box, "a", "sh", "-c", "ls -d /proc/[0-9]* | head -n 1; cat /proc/1/comm") == (
            0,
            "/proc/1\nsleep\n",
        )


def test_where_memory_must_not_become_a_program(box: Box) -> None:
    """As SELinux may have it, and as on another processor: every container is made by Python."""
    start = (
        "from runtime import machinecode; machinecode.place = lambda code: None; from runtime import launcher as it;"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = ["--socket-fd", str(theirs.fileno()), "--root", box.root]
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", f"{start} it.main()", *words], cwd=REPOSITORY, pass_fds=[theirs.fileno()]
    )
    theirs.close()
    with client.Launcher(ours, process) as launcher:
        for name, change in (("a", nothing), ("b", user_namespace)):
            config = box.config(name, "true")
            change(config, box.folder)
            box._made.append(name)
            assert not launcher.create(name, config, overlay=box.overlay(name))["scripted"]
            assert box.ended(name).exit_code == 0


def test_requests_leave_nothing_open_in_the_launcher(box: Box) -> None:
    """Neither those that succeed nor those that fail early, late, or in the container."""
    launcher = box.launcher.ping()
    nowhere = {"overlay": {"lower": ["/nowhere"], "upper": "/nowhere", "work": "/nowhere"}}

    def attempts() -> None:
        good, missing = box.config("a", "true"), box.config("a", "/nowhere")
        for config, extra in ((good, {}), (good, nowhere), (missing, {}), ({**good, "hostname": "-"}, {})):
            try:
                box.create("a", config, **extra)
            except errors.ContainerError:
                assert config is not good or extra
            else:
                box.ended("a")
            box.delete("a", force=True)

    attempts()
    before = until(lambda: _open(launcher), what="it opens and closes nothing at the moment")
    for _ in range(5):
        attempts()
    # A monitor that stands by may have come meanwhile.
    wait_until(lambda: 0 < len(_open(launcher)) <= len(before) + 1, f"hardly more are open than {before}")


def _open(pid: int) -> list[str]:
    """What a process has open, without the numbers; nothing when something was closed while it was looked at."""
    try:
        return sorted(str(link.readlink()).split(":")[0] for link in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return []
