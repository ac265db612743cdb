"""Three machines with systemd on one segment become three control planes, by one command each: one story, in the order
of the file.

Each test finds the machines as the one before has left them, so they are run together, by one worker.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.deploy.conftest import SERVICE, push
from tests.support import bundles, debians, systemdmachine
from tests.support.systemdmachine import ADDRESS, Machine, main_pid, processes
from tests.support.waiting import until

UNITS = "orch-etcd orch-controlplane"
JOIN_S = 90.0
WORK = "while :; do date"
"""What the containers of the service run."""
pytestmark = [
    pytest.mark.root,
    pytest.mark.etcd,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("install"),  # one after the other: each keeps all processors of a small machine busy
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make bundle` makes, and the next release."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles.make(folder, debians.own())
    return folder


@pytest.fixture(scope="module")
def machines(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Machine]]:
    """Installed, and nothing in a cluster yet. They are called cp1, cp2 and cp3."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        folders = [tmp_path_factory.mktemp("machine") for _ in range(3)]
        made = [
            stack.enter_context(systemdmachine.running(folder, bundle, release=debians.own())) for folder in folders
        ]
        stack.enter_context(segment(made))
        list(pool.map(lambda machine: machine.sh(f"ln -s /mnt/{bundle.name} /bundles; /bundles/orch/install.sh"), made))
        yield made


def address(number: int) -> str:
    """Of the machine cp1, cp2 or cp3."""
    return f"{ADDRESS.rpartition('.')[0]}.{number}"


@contextlib.contextmanager
def segment(machines: Sequence[Machine]) -> Iterator[None]:
    """Puts the other ends of the machines' links on a bridge, in a network of its own that ends with the block."""
    with subprocess.Popen(
        ["unshare", "--net", "bash", "-c", "ip link add segment type bridge && ip link set segment up && echo && read"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as bridge:
        assert bridge.stdout is not None
        assert bridge.stdout.readline(), "no bridge was made"
        for number, machine in enumerate(machines, 1):
            in_machine, in_segment = (["nsenter", f"--target={pid}", "--net"] for pid in (machine.pid, bridge.pid))
            moved = ["ip", "link", "set", "outside", "netns", str(bridge.pid), "name", f"to{number}"]
            subprocess.run([*in_machine, *moved], check=True, timeout=20)
            subprocess.run(
                [*in_segment, "ip", "link", "set", f"to{number}", "master", "segment", "up"], check=True, timeout=20
            )
            machine.sh(
                f"hostname cp{number}; ip address flush dev uplink; ip address add {address(number)}/24 dev uplink"
            )
        try:
            yield
        finally:
            bridge.kill()


def listen(machine: Machine, port: int) -> "subprocess.Popen[bytes]":
    """Something else at a port of the machine."""
    script = f"import socket; s = socket.create_server(('0.0.0.0', {port})); print(flush=True); input()"
    command = ["nsenter", f"--target={machine.pid}", "--net", "python3", "-c", script]
    busy = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert busy.stdout is not None
    assert busy.stdout.readline(), "nothing listens"
    return busy


def findings(machine: Machine) -> dict[tuple[str, str], tuple[str, str]]:
    """Verdict and message of the cluster's doctor, by place and check. It may have found what fails."""
    found = json.loads(machine.sh("orchctl cluster doctor --without-network -o json 2>/dev/null", code=None))
    return {(one["place"], one["check"]): (one["verdict"], one["message"]) for one in found}


def controlplane_token(machine: Machine) -> str:
    return machine.sh("orchctl cluster token create --role controlplane --uses 1 2>/dev/null").strip()


def test_the_first_is_founded_and_tells_how_the_others_join(machines: Sequence[Machine]) -> None:
    said = machines[0].run("orchctl", "cluster", "init", f"--address={address(1)}")
    assert "  echo orch-1.controlplane." in said
    assert f" | orchctl cluster join --server {address(1)} --token -\n" in f"{said}\n"
    assert findings(machines[0])["etcd", "quorum"][0] == "ok"


def test_what_is_in_the_way_of_the_second_is_told_and_nothing_is_half_done(machines: Sequence[Machine]) -> None:
    """A port in use, a token for another role, a server that is not there. No use of a token is used up."""
    first, second, _ = machines
    token = controlplane_token(first)
    node = first.sh("orchctl cluster token create --role node 2>/dev/null").strip()
    join = ["orchctl", "cluster", "join", f"--server={address(1)}"]
    for port in (7400, 2380):
        with listen(second, port) as busy:
            said = second.run(*join, f"--token={token}", code=1)
            busy.kill()
        assert f"orchctl: cluster join: port {port} of {address(2)} is in use" in said
    assert "the token is for the role node" in second.run(*join, f"--token={node}", code=1)
    away = second.run("orchctl", "cluster", "join", f"--server={address(9)}", f"--token={token}", code=1)
    assert f"cannot reach the door of the control plane at {address(9)}:7401" in away
    assert second.sh("ls /etc/orch") == ""
    assert second.sh(f"systemctl is-active {UNITS}", code=None).split() == ["inactive"] * 2
    assert f"serves at {address(2)}:7400" in second.run(*join, f"--token={token}")
    assert second.sh(f"systemctl is-enabled {UNITS}; systemctl is-active {UNITS}").split() == [
        *["enabled"] * 2,
        *["active"] * 2,
    ]


def test_a_join_that_broke_off_before_anything_was_started_is_ended_by_the_same_command(
    machines: Sequence[Machine],
) -> None:
    """By the door of the second one. The token's one use is not used twice."""
    first, _, third = machines
    token = controlplane_token(first)
    join = ["orchctl", "cluster", "join", f"--server={address(2)}", f"--token={token}"]
    until(lambda: findings(first)["etcd", "quorum"][1].startswith("2 of 2"), what="the second counts", timeout_s=JOIN_S)
    third.sh("systemctl mask --runtime orch-etcd orch-controlplane")
    assert "orch-etcd is not installed here" in third.run(*join, code=1)
    third.sh("systemctl unmask --runtime orch-etcd orch-controlplane")
    assert f"serves at {address(3)}:7400" in third.run(*join)
    owners = third.sh("stat --format='%U %a' /var/lib/orch/trust /var/lib/orch/etcd; ls /var/lib/orch").split()
    assert owners[:4] == ["orch", "700", "orch", "700"]
    assert "trust.new" not in owners


def test_all_three_are_one_cluster_and_each_reaches_the_others(machines: Sequence[Machine]) -> None:
    def whole() -> bool:
        found = findings(machines[0])
        return found["etcd", "quorum"] == ("ok", "3 of 3 members answer; 1 may fail") and all(
            found.get((f"cp{number}", "ports"), ("",))[0] == "ok" for number in (1, 2, 3)
        )

    until(whole, what="all three count", timeout_s=JOIN_S, every_s=1)
    found = findings(machines[0])
    for name in ("cp1", "cp2", "cp3"):
        assert {found[name, check][0] for check in ("instance", "version", "store certificate")} == {"ok"}
        assert (name, "timekeeping") in found, "its unit lets it ask"


def test_the_others_go_on_without_the_first_and_take_it_back(machines: Sequence[Machine]) -> None:
    """By the admin's context, which has learnt where all of them are."""
    first, *_ = machines
    first.run("orchctl", "get", "nodes")
    first.sh(f"systemctl stop {UNITS}")
    changed = "orchctl cluster token create --role node >/dev/null && orchctl cluster member ls | grep -c controlplane:"
    until(
        lambda: first.sh(f"({changed}) 2>/dev/null", code=None).strip() == "3",
        what="another leads, and takes changes",
        timeout_s=JOIN_S,
        every_s=1,
    )
    first.sh(f"systemctl start {UNITS}")
    until(
        lambda: findings(first)["etcd", "quorum"][1].startswith("3 of 3"),
        what="it is back",
        timeout_s=JOIN_S,
        every_s=1,
    )


def test_a_control_plane_is_upgraded_before_the_nodes_which_go_on_under_it(machines: Sequence[Machine]) -> None:
    """The first is of the next release, and leads, while both agents and the other control planes are of this one."""
    first, *others = machines
    token = first.sh("orchctl cluster token create --role node 2>/dev/null").strip()
    for number, machine in enumerate(others, 2):
        machine.run("orchctl", "node", "join", f"--server={address(1)}", f"--token={token}", f"--name=n{number}")
    push(first)
    first.put("/root/clock.yaml", SERVICE)
    first.run("orchctl", "apply", "-f", "/root/clock.yaml")
    before = first.sh("readlink /opt/orch/current").strip()
    running = [processes(machine, WORK) for machine in others]
    assert [len(found) for found in running] == [1, 1]

    first.sh("/bundles/next/install.sh")
    assert f"/opt/orch/{before}-next/" in command_of(first, "orch-controlplane")
    for machine in others:
        machine.sh("systemctl stop orch-controlplane")
    until(lambda: first.run("orchctl", "get", "nodes").count("READY") == 2, what="both are back", timeout_s=JOIN_S)
    first.run("orchctl", "scale", "clock=4")
    assert [len(processes(machine, WORK)) for machine in others] == [2, 2]
    for machine, found in zip(others, running, strict=True):
        assert f"/opt/orch/{before}/" in command_of(machine, "orch-agent")
        assert set(found) <= set(processes(machine, WORK)), "what ran was started anew"


def test_the_others_follow_one_after_the_other_and_containers_do_not_notice(machines: Sequence[Machine]) -> None:
    """Each with its agent; then all are of one release."""
    first, *others = machines
    running = [processes(machine, WORK) for machine in others]
    for machine in others:
        machine.sh("systemctl start orch-controlplane")
        machine.sh("/bundles/next/install.sh")
        until(lambda: "4/4" in first.run("orchctl", "get", "services"), what="all are ready", timeout_s=JOIN_S)
    assert [processes(machine, WORK) for machine in others] == running
    until(
        lambda: {findings(first).get((f"cp{number}", "version"), ("",))[0] for number in (1, 2, 3)} == {"ok"},
        what="the doctor finds one version",
        timeout_s=JOIN_S,
        every_s=1,
    )
    assert all("-next/" in command_of(machine, "orch-agent") for machine in others)


def command_of(machine: Machine, unit: str) -> str:
    """What its program was started as, with the folder of its release."""
    return machine.sh(f"tr '\\0' ' ' </proc/{main_pid(machine, unit)}/cmdline")
