"""An installation from its first minute to its last, on a machine with systemd: one story, in the order of the file.

Each test finds the machine as the one before has left it, so they are run together, by one worker. `make test` has
this machine's release of Debian alone. The others are for `make test-systems`: each takes a minute and a half, and
twice as long where its Debian has to be fetched.
"""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import debians, rootfs, systemdmachine
from tests.support.systemdmachine import ADDRESS, Machine
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.root,
    pytest.mark.etcd,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("install"),
]

BUNDLE_S = 800
MAKE_BUNDLE = """\
apt-get --quiet=2 update
apt-get --quiet=2 --assume-yes --no-install-recommends install python3-venv
python3 -m venv /tmp/venv
PYTHON=/tmp/venv/bin/python /mnt/source/deploy/bundle.sh /mnt/out/orch
"""
"""Where nothing is but a small Debian."""
LISTING = (
    "find / -xdev \\( -path /proc -o -path /tmp -o -path /mnt -o -path /dev -o -path /run -o -path /sys -o -path /root "
    "-o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd "
    "-o -path /var/lib/orch \\) -prune -o -printf '%p %y %m %u %l\\n' | sort"
)
"""Files of the machine, but for logs, caches and the package manager's own."""
LIST_PROCESSES = (
    "for each in /proc/[0-9]*; do { parent=$(sed -n 's/^PPid:[[:space:]]*//p' $each/status) && "
    "echo ${each#/proc/} $parent $(tr '\\0' ' ' <$each/cmdline); } 2>/dev/null; done; true"
)
"""As `ps`, which is not there before the installation and after it."""
BACKUPS = ("/etc/gshadow- ", "/etc/shadow- ", "/etc/passwd- ", "/etc/group- ", "/etc/.pwd.lock ")
"""What useradd and its like leave of the day before."""

SERVICE = """\
kind: Service
meta: {name: clock}
spec:
  replicas: 2
  template:
    container: {image: busybox, command: [/bin/sh, -c, "while :; do date; sleep 1; done"]}
"""


@pytest.fixture(scope="module", params=dict.fromkeys((debians.own(), *debians.SUPPORTED)))
def release(request: pytest.FixtureRequest) -> str:
    """This machine's, and the others that are supported."""
    name: str = request.param
    if name != debians.own() and not os.environ.get("ORCH_TEST_SYSTEMS"):
        pytest.skip(f"{name} is not this machine's release: make test-systems")
    if reason := debians.why_not(name):
        pytest.skip(reason)
    return name


@pytest.fixture(scope="module")
def bundle(release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make bundle` makes on such a machine, and beside it the next release: the same, under another name."""
    folder = tmp_path_factory.mktemp("bundles")
    made = folder / "orch"
    if release == debians.own():
        command = [ROOT / "deploy/bundle.sh", made]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUNDLE_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        debians.inside(release, MAKE_BUNDLE, source=ROOT, out=folder, timeout_s=BUNDLE_S)
    following = folder / "next"
    shutil.copytree(made, following, copy_function=os.link)
    _rewrite(following, "release", (made / "release").read_text().strip() + "-next\n")
    _rewrite(following, "SHA256SUMS", "")
    sums = "find . -type f -not -name SHA256SUMS -printf '%P\\0' | sort -z | xargs -0 sha256sum >SHA256SUMS"
    subprocess.run(sums, shell=True, cwd=following, check=True)
    root = rootfs.busybox(folder / "root")
    with tarfile.open(folder / "busybox.tar", "w") as archive:
        archive.add(root, ".")
    return folder


def _rewrite(folder: Path, name: str, text: str) -> None:
    """Without touching the file that shares its content."""
    (folder / name).unlink()
    (folder / name).write_text(text)


@pytest.fixture(scope="module")
def machine(release: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with systemdmachine.running(tmp_path_factory.mktemp("machine"), bundle, release=release) as up:
        up.sh(f"ln -s /mnt/{bundle.name} /bundles; {LISTING} >/tmp/before")
        yield up


def processes(machine: Machine, name: str) -> list[str]:
    """The pids of those with this in their command line; but for a shell's children that have not executed theirs."""
    found = {}
    for line in machine.sh(LIST_PROCESSES).splitlines():
        pid, parent, *command = line.split(" ", 2)  # one that has ended has no command line any more
        if command and re.search(name, command[0]):
            found[pid] = parent
    return [pid for pid, parent in found.items() if parent not in found]


def test_another_system_is_refused_and_left_as_it_is(machine: Machine) -> None:
    """Also a release that is supported, by a bundle that was made for another one."""
    machine.sh("cp /etc/os-release /tmp/os-release")
    own = machine.sh('. /etc/os-release; echo "$ID $VERSION_ID"').strip()
    unsupported = "this system is {}, and Orch installs on Debian 12, Debian 13 and Ubuntu 24.04"
    for system, why in (
        ("fedora 40", unsupported),
        ("debian 11", unsupported),
        ("ubuntu 22.04", unsupported),
        ("ubuntu 24.04", f"this bundle is for {own}, and the machine is {{}}"),
    ):
        name, version = system.split()
        machine.sh(f"printf 'ID=%s\\nVERSION_ID=%s\\n' {name} {version} >/etc/os-release")
        assert f"install: {why.format(system)}\n" in machine.sh("/bundles/orch/install.sh", code=1)
    machine.sh("cp /tmp/os-release /etc/os-release")
    assert machine.sh("ls /opt") == ""


def test_a_damaged_bundle_is_refused(machine: Machine) -> None:
    machine.sh("cp -r /bundles/orch/. /tmp/damaged; echo >>/tmp/damaged/system/60-orch.conf")
    said = machine.sh("/tmp/damaged/install.sh", code=1)
    assert "install: /tmp/damaged is damaged: system/60-orch.conf: FAILED" in said
    assert machine.sh("ls /opt; rm -r /tmp/damaged") == ""


def test_it_installs_without_a_network_and_starts_nothing(machine: Machine) -> None:
    """The machine has no way out, and no Python."""
    assert machine.sh("ip route show default") == ""
    machine.sh("! command -v python3")
    assert "is installed; next: orchctl cluster init" in machine.sh("/bundles/orch/install.sh")
    for program in ("orchctl", "orch-agent", "orch-controlplane", "orch-etcd"):
        assert machine.run(program, "--help").lower().startswith("usage")
    assert machine.sh("systemctl list-units --plain --no-legend 'orch*' 'etcd*'") == ""
    assert (
        machine.sh(
            "systemd-analyze verify --man=no /usr/local/lib/systemd/system/orch-*.service 2>&1 | grep orch- || true"
        )
        == ""
    )


def test_again_it_finds_everything_done(machine: Machine) -> None:
    """No file is written: not even its time changes."""
    changed = "find /opt/orch /usr/local /etc /var/lib/dpkg/status -xdev -type f -newer /tmp/mark"
    machine.sh("touch /tmp/mark; sleep 0.1; touch /tmp/mark; /bundles/orch/install.sh")
    assert machine.sh(changed) == ""


def test_a_port_that_is_in_use_is_told_before_anything_is_done(machine: Machine) -> None:
    listener = "import socket; s = socket.create_server(('0.0.0.0', 2379)); print(flush=True); input()"
    with subprocess.Popen(
        ["nsenter", f"--target={machine.pid}", "--net", "python3", "-c", listener],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        said = machine.run("orchctl", "cluster", "init", f"--address={ADDRESS}", code=1)
        busy.kill()
    assert f"orchctl: cluster init: port 2379 of {ADDRESS} is in use" in said
    assert "hint: `ss -ltnp sport = :2379` tells by whom" in said
    assert machine.sh("ls /etc/orch /var/lib/orch") == "/etc/orch:\n\n/var/lib/orch:\n"


def test_a_cluster_is_founded_and_the_machine_is_its_node_by_one_command_each(machine: Machine) -> None:
    """The commands that `init` prints are those that others type."""
    said = machine.run("orchctl", "cluster", "init", "--name=cp1", f"--address={ADDRESS}")
    join = next(line.split() for line in said.splitlines() if "orchctl node join" in line)
    assert "and its agent runs" in machine.run(*join, "--name=n1")
    until(lambda: "READY" in machine.run("orchctl", "get", "nodes"), what="the node is ready", timeout_s=30)
    assert machine.sh("systemctl is-enabled orch-etcd orch-controlplane orch-agent").split() == ["enabled"] * 3
    owners = machine.sh("stat --format='%U %a' /var/lib/orch/trust /var/lib/orch/agent/trust; ps -o user= -C etcd")
    assert owners.split() == ["orch", "700", "root", "700", "orch"]


def test_said_again_both_go_on_from_where_they_are(machine: Machine) -> None:
    """So that what broke off is mended by the same command."""
    assert "was founded before" in machine.run("orchctl", "cluster", "init", "--name=cp1", f"--address={ADDRESS}")
    token = machine.sh("orchctl cluster token create --role node 2>/dev/null").strip()
    machine.sh("rm /etc/orch/agent.yaml; systemctl disable --now orch-agent")  # as if it had broken off behind the join
    before = machine.sh("cat /var/lib/orch/agent/node.json")
    assert "and its agent runs" in machine.run(
        "orchctl", "node", "join", f"--server={ADDRESS}", f"--token={token}", "--name=n1"
    )
    assert machine.sh("cat /var/lib/orch/agent/node.json") == before
    assert machine.sh("orchctl get nodes | wc -l").strip() == "2", "a title, and one node"


def test_a_mistake_in_a_file_is_told_and_not_tried_again(machine: Machine) -> None:
    machine.sh("echo 'adress: 10.0.0.1' >>/etc/orch/agent.yaml")
    machine.sh("systemctl restart orch-agent", code=1)
    assert machine.sh("systemctl is-failed orch-agent").strip() == "failed"
    assert 'adress: unknown key; did you mean "address"?' in machine.sh(
        "journalctl --quiet --output=cat --unit=orch-agent | tail -9"
    )
    machine.sh("sed -i /^adress/d /etc/orch/agent.yaml; systemctl restart orch-agent")


def test_containers_outlive_the_agent_however_it_ends(machine: Machine, bundle: Path) -> None:
    """In the group that systemd gives away, beside the agent's."""
    machine.run(
        "orchctl", "image", "push", "--archive", "/bundles/busybox.tar", "--name", "busybox", "--cmd", "/bin/sh"
    )
    machine.put("/root/clock.yaml", SERVICE)
    machine.run("orchctl", "apply", "-f", "/root/clock.yaml", "--timeout=60s")
    running = processes(machine, "while :; do date")
    assert len(running) == 2, bundle
    groups = machine.sh(f"cat /proc/{running[0]}/cgroup")
    assert "/system.slice/orch-tasks.service/" in groups
    for end in (
        "systemctl restart orch-agent",
        "systemctl stop orch-agent; systemctl start orch-agent",
        "systemctl kill --kill-whom=main --signal=KILL orch-agent",
    ):
        machine.sh(end)
        until(lambda: machine.sh("systemctl is-active orch-agent", code=None).strip() == "active", what="it is back")
        assert processes(machine, "while :; do date") == running, end


def test_an_agent_that_hangs_is_killed_by_the_watchdog(machine: Machine) -> None:
    """It hears from the agent's loop, not from its process."""
    assert machine.sh("systemctl show --property=WatchdogUSec orch-agent").strip() == "WatchdogUSec=1min"
    machine.sh(
        "mkdir -p /run/systemd/system/orch-agent.service.d; printf '[Service]\\nWatchdogSec=5s\\n' "
        ">/run/systemd/system/orch-agent.service.d/test.conf; systemctl daemon-reload; systemctl restart orch-agent"
    )
    first = machine.sh("systemctl show --value --property=MainPID orch-agent").strip()
    running = processes(machine, "while :; do date")
    machine.sh(f"kill -STOP {first}")
    until(
        lambda: machine.sh("systemctl show --value --property=MainPID orch-agent").strip() not in {first, "0"},
        what="another agent runs",
        timeout_s=60,
    )
    said = machine.sh("journalctl --quiet --output=cat --unit=orch-agent --grep=watchdog", code=None)
    assert "Watchdog timeout" in said
    assert processes(machine, "while :; do date") == running
    machine.sh("rm -r /run/systemd/system/orch-agent.service.d; systemctl daemon-reload; systemctl restart orch-agent")


def test_an_upgrade_and_its_rollback_leave_containers_alone(machine: Machine) -> None:
    """What runs goes on; what is started next is of the other release."""
    before, running = machine.sh("readlink /opt/orch/current").strip(), processes(machine, "while :; do date")
    machine.sh("/bundles/next/install.sh")
    for release, other in ((f"{before}-next", before), (before, f"{before}-next")):
        assert machine.sh("readlink /opt/orch/current /opt/orch/previous").split() == [release, other]
        for unit in ("orch-agent", "orch-controlplane"):
            pid = machine.sh(f"systemctl show --value --property=MainPID {unit}").strip()
            assert f"/opt/orch/{release}/" in machine.sh(f"tr '\\0' ' ' </proc/{pid}/cmdline"), unit
        assert processes(machine, "while :; do date") == running
        until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="both are ready", timeout_s=30)
        if release != before:
            machine.sh("/opt/orch/install.sh rollback")


def test_a_member_is_not_uninstalled_by_mistake(machine: Machine) -> None:
    said = machine.sh("/opt/orch/install.sh uninstall", code=1)
    assert "this machine belongs to a cluster" in said
    assert "/opt/orch/install.sh uninstall --with-data" in said
    assert machine.sh("systemctl is-active orch-agent orch-controlplane orch-etcd").split() == ["active"] * 3


def test_uninstalling_leaves_nothing(machine: Machine) -> None:
    """No file, package, user, process, link, rule, mount or control group."""
    machine.sh("/opt/orch/install.sh uninstall --with-data")
    machine.sh(f"{LISTING} >/tmp/after")
    left = machine.sh("diff /tmp/before /tmp/after", code=None).splitlines()
    assert [
        line for line in left if line[:1] in "<>" and line[2:].startswith("/") and not line[2:].startswith(BACKUPS)
    ] == []
    assert machine.sh("ls -A /var/lib/orch; ls /run | grep orch; getent passwd orch", code=None) == ""
    assert machine.sh("command -v python3 etcd nft", code=None) == "", "Debian's packages went, too"
    assert processes(machine, "orch|etcd|while :; do date") == []
    assert [
        line
        for line in machine.sh("ip -brief link").splitlines()
        if not line.startswith(
            ("lo", "uplink", "outside", "tunl0", "sit0", "ip6", "gre", "erspan", "ip_vti", "ip6_vti", "ip6tnl")
        )
    ] == []
    assert machine.sh("find /sys/fs/cgroup -name '*orch*'") == ""
    places = [line.split()[1] for line in machine.sh("cat /proc/mounts").splitlines()]
    assert [place for place in places if "orch" in place and not place.startswith(("/mnt/", "/var/lib/orch"))] == []
