"""An installation from its first minute to its last, on a machine with systemd: one story, in the order of the file.

Each test finds the machine as the one before has left it, so they are run together, by one worker. `make test` has
this machine's release of Debian alone. The others are for `make test-systems`: each takes a minute and a half, and
twice as long where its Debian has to be fetched.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.deploy.conftest import (
    SERVICE,
    TASKS_GROUP,
    TASKS_UNIT,
    check_nothing_is_left,
    memory_limit,
    push,
)
from tests.support import inotify
from tests.support.systemdmachine import ADDRESS, READ_METRICS, Machine, main_pid, processes
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.root,
    pytest.mark.etcd,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("install"),
    pytest.mark.usefixtures("_kernel_parameters"),
]

ELSEWHERE = "10.99.0.2"
"""Where the control plane is restored."""


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
    verify = "systemd-analyze verify --man=no /usr/local/lib/systemd/system/orch-*.service 2>&1 | grep orch- || true"
    assert machine.sh(verify) == ""
    assert inotify.parameters() == inotify.INSTALLED


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
    join = next(line for line in said.splitlines() if "orchctl node join" in line)
    assert "and its agent runs" in machine.sh(f"{join} --name=n1")
    until(lambda: "READY" in machine.run("orchctl", "get", "nodes"), what="the node is ready", timeout_s=30)
    assert machine.sh("systemctl is-enabled orch-etcd orch-controlplane orch-agent").split() == ["enabled"] * 3
    owners = machine.sh("stat --format='%U %a' /var/lib/orch/trust /var/lib/orch/agent/trust; ps -o user= -C etcd")
    assert owners.split() == ["orch", "700", "root", "700", "orch"]


def test_the_doctor_knows_the_node_that_is_installed(machine: Machine) -> None:
    """Without a word: its folder, its certificate, its ports."""
    # Whatever else it thinks of a machine that is no real one.
    found = {
        one["check"]: one for one in json.loads(machine.run("orchctl", "node", "doctor", "--output=json", code=None))
    }
    told = {check: one["message"] for check, one in found.items()}
    assert told["configuration"] == "/etc/orch/agent.yaml is what the agent is told"
    assert "at /var/lib/orch/agent" in told["disk"]
    assert f"with {ADDRESS}" in told["mtu"]
    assert "is good for" in told["certificate"]
    for check in ("configuration", "certificate", "port 7402/tcp", "port 7403/tcp", "port 4789/udp"):
        assert found[check]["verdict"] == "ok", found[check]


def test_both_tell_of_themselves_on_one_machine(machine: Machine) -> None:
    """Prometheus reads the control plane and the node at different ports, as a person with a certificate."""
    for role, port, metric in (("controlplane", 7404, "orch_leader 1"), ("node", 7403, "orch_node_session 1")):
        page = machine.run(
            "python3", "-c", READ_METRICS, "/root/.config/orch/trust/default", ADDRESS, str(port), f"{role}.orch"
        )
        assert metric in page, role


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
    push(machine)
    machine.put("/root/clock.yaml", SERVICE)
    machine.run("orchctl", "apply", "-f", "/root/clock.yaml", "--timeout=60s")
    running = processes(machine, "while :; do date")
    assert len(running) == 2, bundle
    groups = machine.sh(f"cat /proc/{running[0]}/cgroup")
    assert "/system.slice/orch-tasks.service/" in groups
    for end in (
        "systemctl restart orch-agent",
        "systemctl stop orch-agent; systemctl start orch-agent",
        "systemctl kill orch-agent",
        "systemctl kill --signal=KILL orch-agent",
    ):
        first = main_pid(machine)
        machine.sh(end)
        until(lambda: main_pid(machine) not in {first, "0"}, what="another one runs")  # noqa: B023 - called at once
        until(lambda: machine.sh("systemctl is-active orch-agent", code=None).strip() == "active", what="it is back")
        assert processes(machine, "while :; do date") == running, end


def test_the_agents_unit_has_the_agent_and_nothing_else(machine: Machine) -> None:
    """What watches over containers is beside them, so that systemd never takes it for what an agent has left."""
    group = "/system.slice/orch-agent.service"
    found = machine.sh(f"cat $(find /sys/fs/cgroup -path '*{group}/cgroup.procs') | sort -u").split()
    assert found == [main_pid(machine)]
    watching = processes(machine, "runtime.launcher")
    assert watching, "a launcher, or monitors that look like it"
    for pid in watching:
        groups = machine.sh(f"cat /proc/{pid}/cgroup")
        assert "/system.slice/orch-tasks.service/@monitors" in groups, groups
        assert group not in groups, groups
    shown = machine.sh("systemctl status --no-pager --lines=0 orch-agent")
    assert re.findall(r"[├└]─ *(\d+)", shown) == [main_pid(machine)], shown
    said = machine.sh("journalctl --quiet --output=cat --unit=orch-agent")
    assert "told to end; containers live on" in said
    assert "eft-over process" not in said
    assert "remains running after unit stopped" not in said


def test_limits_of_all_tasks_are_set_by_systemd_and_each_keeps_its_own(machine: Machine) -> None:
    """Whatever has become of the process that keeps their group; killing it ends nobody."""
    running = processes(machine, "while :; do date")
    (keeper,) = processes(machine, "^sleep infinity")
    assert TASKS_GROUP in machine.sh(f"cat /proc/{keeper}/cgroup")
    groups = machine.sh(f"cat /proc/{running[0]}/cgroup /proc/{running[1]}/cgroup")
    for megabytes, change in enumerate(("true", f"kill -9 {keeper}", "systemctl daemon-reload"), 900):
        machine.sh(f"{change} && systemctl set-property orch-tasks MemoryMax={megabytes}M")
        assert memory_limit(machine) == megabytes << 20, change
        machine.sh("systemctl daemon-reload")
        assert memory_limit(machine) == megabytes << 20, change
        assert processes(machine, "while :; do date") == running, change
        assert machine.sh(f"cat /proc/{running[0]}/cgroup /proc/{running[1]}/cgroup") == groups, change
    assert processes(machine, "^sleep infinity") == []
    assert machine.sh("systemctl is-active orch-agent orch-tasks").split() == ["active"] * 2


def test_stopping_the_unit_of_tasks_ends_them_and_the_agent_before_them(machine: Machine) -> None:
    """As a machine does that goes off. With the agent all come again, and the limit that is stored."""
    first = processes(machine, "while :; do date")
    machine.sh("systemctl stop orch-tasks")
    assert machine.sh("systemctl is-active orch-agent orch-tasks", code=None).split() == ["inactive"] * 2
    assert processes(machine, "while :; do date|^sleep infinity|runtime.launcher") == []
    machine.sh("systemctl start orch-agent")
    assert memory_limit(machine) == 902 << 20
    until(lambda: len(processes(machine, "while :; do date")) == 2, what="both run again", timeout_s=60)
    until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="both are ready", timeout_s=60)
    assert not set(processes(machine, "while :; do date")) & set(first)
    machine.sh("systemctl revert orch-tasks")


def test_an_upgrade_from_a_unit_without_a_keeper_leaves_containers_alone(machine: Machine) -> None:
    """Stopping it ends them from then on; once started again it has a keeper."""
    machine.sh("systemctl stop orch-tasks")
    program = "s|^ExecStart=.*|ExecStart=/bin/true|; /^  .*/d; /^ExecStop=/d"
    machine.sh(f"cp {TASKS_UNIT} /tmp/unit; sed -i '{program}' {TASKS_UNIT}; systemctl daemon-reload")
    machine.sh("systemctl start orch-agent")
    until(lambda: len(processes(machine, "while :; do date")) == 2, what="both run", timeout_s=60)
    running = processes(machine, "while :; do date")
    assert processes(machine, "^sleep infinity") == []
    machine.sh(f"/bundles/orch/install.sh; cmp /tmp/unit {TASKS_UNIT}")
    assert processes(machine, "while :; do date") == running
    machine.sh("systemctl restart orch-tasks")
    is_active = "systemctl is-active orch-agent orch-tasks"
    until(lambda: machine.sh(is_active, code=None).split() == ["active"] * 2, what="the agent is back", timeout_s=60)
    assert len(processes(machine, "^sleep infinity")) == 1
    until(lambda: len(processes(machine, "while :; do date")) == 2, what="both run again", timeout_s=60)
    until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="both are ready", timeout_s=60)
    assert not set(processes(machine, "while :; do date")) & set(running)


def test_an_agent_that_is_restarted_is_expected_back_and_one_that_is_stopped_is_not(machine: Machine) -> None:
    """As one whose machine goes off: for systemd both are a stop."""

    def restarts() -> int:
        told = [one["status"] for one in json.loads(machine.sh("orchctl get events -A -o json"))]
        about_nodes = [one for one in told if one["about"]["kind"] == "node" and one["reason"] == "Restarting"]
        return sum(one.get("count", 1) for one in about_nodes)

    until(lambda: "READY" in machine.run("orchctl", "get", "nodes"), what="the node is ready", timeout_s=30)
    before = restarts()
    machine.sh("systemctl restart orch-agent")
    until(lambda: restarts() == before + 1, what="its restart was announced")
    until(lambda: "READY" in machine.run("orchctl", "get", "nodes"), what="it is back", timeout_s=30)
    machine.sh("systemctl stop orch-agent")
    until(lambda: "DOWN" in machine.run("orchctl", "get", "nodes"), what="it is down", timeout_s=15)
    assert restarts() == before + 1
    machine.sh("systemctl start orch-agent")
    until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="its tasks are there", timeout_s=60)


@pytest.mark.parametrize(("unit", "period"), [("orch-agent", "1min"), ("orch-controlplane", "30s")])
def test_a_program_that_hangs_is_killed_by_the_watchdog(machine: Machine, unit: str, period: str) -> None:
    """It hears from the program's loop, not from its process. Another one is started, and works."""
    assert machine.sh(f"systemctl show --property=WatchdogUSec {unit}").strip() == f"WatchdogUSec={period}"
    dropped = f"/run/systemd/system/{unit}.service.d"
    machine.sh(
        f"mkdir -p {dropped}; printf '[Service]\\nWatchdogSec=5s\\n' >{dropped}/test.conf; systemctl daemon-reload; "
        f"systemctl restart {unit}"
    )
    first = main_pid(machine, unit)
    running = processes(machine, "while :; do date")
    machine.sh(f"kill -STOP {first}")
    until(
        lambda: main_pid(machine, unit) not in {first, "0"},
        what=f"another {unit} runs",
        timeout_s=60,
    )
    said = machine.sh(f"journalctl --quiet --output=cat --unit={unit} --grep=watchdog", code=None)
    assert "Watchdog timeout" in said
    until(lambda: "READY" in machine.run("orchctl", "get", "nodes", code=None), what="both work", timeout_s=60)
    assert processes(machine, "while :; do date") == running
    machine.sh(f"rm -r {dropped}; systemctl daemon-reload; systemctl restart {unit}")


def test_an_upgrade_and_its_rollback_leave_containers_alone(machine: Machine) -> None:
    """What runs goes on; what is started next is of the other release."""
    before, running = machine.sh("readlink /opt/orch/current").strip(), processes(machine, "while :; do date")
    machine.sh("/bundles/next/install.sh")
    for release, other in ((f"{before}-next", before), (before, f"{before}-next")):
        assert machine.sh("readlink /opt/orch/current /opt/orch/previous").split() == [release, other]
        for unit in ("orch-agent", "orch-controlplane"):
            assert f"/opt/orch/{release}/" in machine.sh(f"tr '\\0' ' ' </proc/{main_pid(machine, unit)}/cmdline"), unit
        assert processes(machine, "while :; do date") == running
        until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="both are ready", timeout_s=30)
        if release != before:
            machine.sh("/opt/orch/install.sh rollback")


def test_a_lost_control_plane_is_restored_by_one_command(machine: Machine) -> None:
    """At another address. Containers do not notice; its node is told once where it is now."""
    running = processes(machine, "while :; do date")
    machine.run("orchctl", "cluster", "backup", "--out=/root/home.backup")
    said = machine.run("orchctl", "cluster", "restore", "/root/home.backup", code=1)
    assert "/var/lib/orch/trust is of a control plane: a cluster is restored where there is none" in said
    page = (ROOT / "docs/backup.md").read_text()
    lost = [
        line.strip() for line in page.splitlines() if line.startswith(("    systemctl disable", "    mkdir /root/lost"))
    ]
    assert len(lost) == 2, "what the guide says of a machine whose disk is left"
    machine.sh(" && ".join([*lost, f"ip address add {ELSEWHERE}/24 dev uplink"]))
    command = ("orchctl", "cluster", "restore", "/root/home.backup", "--name=cp1", f"--address={ELSEWHERE}")
    assert "hint: call the one of this cluster by another name" in machine.run(*command, code=1)
    said = machine.run(*command, "--context=restored")
    assert "is restored as of revision" in said
    tell = next(line.strip() for line in said.splitlines() if line.strip().startswith("sed "))
    machine.sh(tell)
    until(lambda: "READY" in machine.run("orchctl", "get", "nodes"), what="the node is back", timeout_s=60)
    until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="both are ready", timeout_s=60)
    assert processes(machine, "while :; do date") == running
    owners = machine.sh("stat --format='%U %a' /var/lib/orch/{trust,etcd,controlplane}; ls /var/lib/orch/trust")
    assert owners.split()[:6] == ["orch", "700"] * 3
    assert "restoring.bin" not in owners, "it is in the store"
    assert machine.sh("systemctl is-enabled orch-etcd orch-controlplane").split() == ["enabled"] * 2
    assert "was restored from /root/home.backup before" in machine.run(*command)


def test_a_node_leaves_by_one_command_and_may_come_again(machine: Machine) -> None:
    """Not while it has tasks; then nothing of it stays, and the control plane beside it does not notice."""
    refused = machine.run("orchctl", "node", "leave", code=1)
    assert "2 tasks run here" in refused
    assert "have the node drained first, or say --kill-tasks" in refused
    assert machine.sh("systemctl is-active orch-agent").strip() == "active"
    serves = main_pid(machine, "orch-controlplane")
    said = machine.run("orchctl", "node", "leave", "--kill-tasks")
    forget = said.strip().splitlines()[-1]
    assert forget.endswith("orchctl delete node n1"), "what is to be typed next"
    until(lambda: not processes(machine, "while :; do date|bin/orch-agent|^sleep infinity"), what="all of it has ended")
    assert machine.sh(
        "systemctl is-active orch-agent orch-tasks; systemctl is-enabled orch-agent", code=None
    ).split() == [
        *("inactive", "inactive"),
        "disabled",
    ]
    assert machine.sh("ls /etc/orch /var/lib/orch").split() == [
        *("/etc/orch:", "controlplane.yaml", "etcd.yaml"),
        *("/var/lib/orch:", "controlplane", "etcd", "trust"),
    ]
    assert "orch" not in machine.sh("ip -brief link; nft list tables")
    assert "No such file" in machine.sh("ls /run/orch", code=2)
    assert main_pid(machine, "orch-controlplane") == serves
    assert "this machine is no node" in machine.run("orchctl", "node", "leave", code=1)
    machine.sh(forget)
    push(machine)  # the control plane that was lost had it, and the node
    token = machine.sh("orchctl cluster token create --role node 2>/dev/null").strip()
    machine.run(
        "orchctl", "node", "join", f"--server={ELSEWHERE}", f"--token={token}", "--name=n1", f"--address={ADDRESS}"
    )
    until(lambda: "2/2" in machine.run("orchctl", "get", "services"), what="both run again", timeout_s=60)


def test_a_member_is_not_uninstalled_by_mistake(machine: Machine) -> None:
    said = machine.sh("/opt/orch/install.sh uninstall", code=1)
    assert "this machine belongs to a cluster" in said
    assert "/opt/orch/install.sh uninstall --with-data" in said
    assert machine.sh("systemctl is-active orch-agent orch-controlplane orch-etcd").split() == ["active"] * 3


def test_uninstalling_leaves_nothing(machine: Machine) -> None:
    """No file, package, user, process, link, rule, mount or control group; and the kernel has its parameters again."""
    machine.sh("systemctl set-property orch-tasks MemoryMax=90%")
    said = machine.sh("/opt/orch/install.sh uninstall --with-data")
    assert "removed from /root/.config/orch: default, restored" in said
    assert machine.sh("ls -A /root/.config") == ""
    check_nothing_is_left(machine)
    assert inotify.parameters() == inotify.OTHERS
    assert machine.sh("ls -A /var/lib/orch; ls /run | grep orch; getent passwd orch", code=None) == ""
    assert machine.sh("command -v python3 etcd nft", code=None) == "", "Debian's packages went, too"
    assert processes(machine, "orch|etcd|while :; do date|^sleep infinity") == []
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
