"""The doctor of a node, on machines that are broken for real: in namespaces where something is missing or full."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from agent import doctor
from protos.orch.v1 import trust_pb2
from tests.integration.agent.conftest import REPOSITORY
from tests.support import aio, nameserver, pages, trusted
from trust.folder import Folder

pytestmark = pytest.mark.root

DAY_MS = 86_400_000
ADDRESS = "10.9.8.7"
CHECKS = {
    *("user", "kernel", "cgroups", "seccomp", "disk", "inodes", "overlayfs", "users", "memory", "nftables", "vxlan"),
    *("user ids", "port 7402/tcp", "port 7403/tcp", "port 4789/udp", "port 53/udp", "port 53/tcp", "dns", "clock"),
    "certificate",
}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    """A network namespace with a link that has ADDRESS, and nothing else in it."""
    path = tmp_path / "net"
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "ip", "link", "set", "lo", "up"], check=True)
    try:
        for command in ("link add e0 type veth peer name e1", f"address add {ADDRESS}/24 dev e0", "link set e0 up"):
            subprocess.run(["nsenter", f"--net={path}", "ip", *command.split()], check=True)
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def command(net: Path, *options: str, inside: Sequence[str] = ()) -> list[str]:
    """The doctor in that network, and in whatever `inside` makes."""
    return [*("nsenter", f"--net={net}"), *inside, sys.executable, "-m", "agent.doctor", *options]


def examined(
    net: Path, folder: Path, *options: str, inside: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> dict[str, tuple[str, str, str]]:
    """The same of the agent with this state folder."""
    return look(net, f"--state={folder}", *options, inside=inside, environ=environ)


def look(
    net: Path, *options: str, inside: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> dict[str, tuple[str, str, str]]:
    """Verdict, message and remedy of each check."""
    done = subprocess.run(
        command(net, "--output=json", *options, inside=inside),
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    found = {one["check"]: (one["verdict"], one["message"], one["remedy"]) for one in json.loads(done.stdout)}
    failed = any(verdict == "failed" for verdict, _, _ in found.values())
    assert done.returncode == failed, done.stderr
    return found


def test_a_machine_that_is_well_has_a_line_for_everything_and_keeps_nothing_of_it(tmp_path: Path, net: Path) -> None:
    """Before it joins; the state folder is not even there. And `orchctl node doctor` is the same."""
    before = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found = examined(net, tmp_path / "not" / "yet", f"--address={ADDRESS}")
    assert found.keys() == {*CHECKS, "mtu"}
    for check in ("user", "seccomp", "overlayfs", "nftables", "vxlan", "mtu", "port 7402/tcp", "port 53/udp"):
        assert found[check][0] == "ok", found[check]
    assert found["certificate"] == ("ok", "this machine has joined no cluster yet", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net"]
    assert subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout == before
    links = subprocess.run(["nsenter", f"--net={net}", "ip", "-br", "link"], capture_output=True, text=True, check=True)
    assert "orch-doctor" not in links.stdout
    verb = ["nsenter", f"--net={net}", sys.executable, "-m", "orchctl", "node", "doctor", f"--state={tmp_path}"]
    said = subprocess.run(verb, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert {line.split(maxsplit=1)[0] for line in said.stdout.splitlines()} <= {"ok", "warning", "failed"}
    assert len(said.stdout.splitlines()) == len(CHECKS)
    assert f"{len(CHECKS)} things were looked at" in said.stderr


def test_what_the_agent_is_told_the_doctor_knows(tmp_path: Path, net: Path) -> None:
    """From the agent's file; what is said wins, and a file with a mistake is a finding like any other."""
    path = tmp_path / "agent.yaml"
    path.write_text(f"state: {tmp_path}/state\naddress: {ADDRESS}\nblob-port: 7502\nlabel: [disk=ssd]\nname: n1\n")
    found = look(net, f"--config={path}")
    assert found.keys() == {*CHECKS, "mtu", "configuration", "port 7502/tcp"} - {"port 7402/tcp"}
    assert found["configuration"] == ("ok", f"{path} is what the agent is told", "")
    assert f"at {tmp_path}" in found["disk"][1]
    assert found["mtu"][1].startswith("e0 with")
    assert "port 7503/tcp" in look(net, f"--config={path}", "--metrics-port=7503")
    path.write_text("adress: 10.0.0.1\n")
    verdict, message, remedy = look(net, f"--config={path}")["configuration"]
    assert (verdict, remedy) == ("failed", f"mend {path}")
    assert f'{path}:1:1: adress: unknown key; did you mean "address"?' in message
    assert "No such file" in look(net, f"--config={tmp_path}/gone")["configuration"][1]


def test_another_agent_than_the_installed_one_is_named_by_its_folder(tmp_path: Path) -> None:
    """Then nothing of what the installed one is told holds; without a word it is the installed one, if there is one."""
    installed = tmp_path / "agent.yaml"
    assert doctor.told([], installed)[0].state == "/var/lib/orch/agent"
    installed.write_text(f"state: {tmp_path}/state\nblob-port: 7502\n")
    other, found = doctor.told([f"--state={tmp_path}/other"], installed)
    assert (other.state, other.blob_port, found) == (f"{tmp_path}/other", 7402, [])
    own, found = doctor.told([], installed)
    assert (own.state, own.blob_port, [one.check for one in found]) == (f"{tmp_path}/state", 7502, ["configuration"])


def test_a_small_disk_without_inodes_is_told(tmp_path: Path, net: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    mounted = (
        f"mount -t tmpfs -o size=64m,nr_inodes=200 none {state} && cd {state} && seq 160 | xargs touch && cd / && "
    )
    inside = ["unshare", "--mount", "sh", "-c", f'{mounted} cd {REPOSITORY} && exec "$@"', "sh"]
    found = examined(net, state, inside=inside)
    assert found["disk"][0] == "failed"
    assert f"of 64Mi at {state}: images do not unpack" in found["disk"][1]
    assert found["inodes"][0] in {"ok", "warning"}
    full = inside[4].replace("seq 160", "seq 196")
    found = examined(net, state, inside=[*inside[:4], full, "sh"])
    assert found["inodes"][0] == "failed"


def test_a_file_system_that_bears_no_overlay_is_told(tmp_path: Path, net: Path) -> None:
    """An overlay itself cannot hold the upper folder of another one."""
    for name in ("lower", "upper", "work", "state"):
        (tmp_path / name).mkdir()
    folders = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounted = f'mount -t overlay -o {folders} none {tmp_path}/state && cd {REPOSITORY} && exec "$@"'
    found = examined(net, tmp_path / "state", inside=["unshare", "--mount", "sh", "-c", mounted, "sh"])
    assert found["overlayfs"][0] == "failed"
    assert "no container gets a root file system here" in found["overlayfs"][1]
    assert found["users"][0] == "warning"


def test_a_machine_that_allows_no_user_namespaces_is_told(tmp_path: Path, net: Path) -> None:
    """In a user namespace of its own, where that can be forbidden."""
    forbidden = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", forbidden, "sh"]
    assert examined(net, tmp_path, inside=inside)["users"][0] == "warning"


def test_a_machine_without_control_groups_is_told(tmp_path: Path, net: Path) -> None:
    gone = 'while grep -q " - cgroup" /proc/self/mountinfo; do umount -lR /sys/fs/cgroup || exit 9; done; exec "$@"'
    found = examined(net, tmp_path, inside=["unshare", "--mount", "sh", "-c", gone, "sh"])
    assert found["cgroups"][:2] == ("failed", "no control groups are mounted, so that no container starts")


def test_a_port_that_somebody_has_is_told_with_who_it_is(tmp_path: Path) -> None:
    """By TCP and UDP; on this machine's loopback, since who has a port is a process that can be seen."""
    here = Path("/proc/self/ns/net")
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 4789))
        port = tcp.getsockname()[1]
        found = examined(here, tmp_path, f"--blob-port={port}", "--address=127.0.0.1", "--metrics-port=0")
        name = Path("/proc/self/comm").read_text().strip()
        assert found[f"port {port}/tcp"] == (
            "failed",
            f"{name} (pid {os.getpid()}) has it, so that there is no place for layers of images for other nodes",
            "end that, or give the agent another --blob-port",
        )
        message, remedy = found[f"port {port}/tcp"][1:]
        shown = pages.finding("port 7402/tcp").replace("nginx", name)
        assert pages.is_seen(shown, f"{message} — {remedy}"), "docs/doctor.md has it"
        assert f"{name} (pid {os.getpid()}) has it" in found["port 4789/udp"][1]
        assert "port 0/tcp" not in found


def test_a_machine_without_nftables_is_told(tmp_path: Path, net: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("unshare", "mount", "ip", "nsenter"):
        path = shutil.which(program)
        assert path is not None
        (tmp_path / "bin" / program).symlink_to(path)
    found = examined(net, tmp_path, environ={**os.environ, "PATH": str(tmp_path / "bin")})
    assert found["nftables"][0] == "failed"
    assert "the program nft is missing" in found["nftables"][1]
    assert "apt install nftables" in found["nftables"][2]
    assert found["vxlan"][0] == "ok"


def test_a_link_whose_packets_are_too_small_is_told_and_an_address_that_nobody_has(tmp_path: Path, net: Path) -> None:
    subprocess.run(["nsenter", f"--net={net}", "ip", "link", "set", "e0", "mtu", "1200"], check=True)
    found = examined(net, tmp_path, f"--address={ADDRESS}")
    assert found["mtu"][0] == "failed"
    assert "e0 takes packets of 1200 bytes" in found["mtu"][1]
    found = examined(net, tmp_path, "--address=10.9.8.1")
    assert found["address"][:2] == (
        "failed",
        "no interface of this machine has the address 10.9.8.1: other nodes do not reach it",
    )


@aio.bounded(60)
async def test_name_servers_are_asked_and_those_that_are_silent_are_named(tmp_path: Path) -> None:
    here, conf = Path("/proc/self/ns/net"), tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.53\nnameserver 127.0.0.54\n")
    async with nameserver.serving("127.0.0.54", 53):
        options = [here, tmp_path, f"--resolv-conf={conf}"]
        verdict, message, _ = (await asyncio.to_thread(examined, *options))["dns"]  # type: ignore[arg-type]
        assert (verdict, "127.0.0.53: Connection refused" in message) == ("warning", True)
        conf.write_text("nameserver 127.0.0.54\n")
        assert (await asyncio.to_thread(examined, *options))["dns"] == ("ok", "127.0.0.54 answers", "")  # type: ignore[arg-type]
    verdict, message, _ = (await asyncio.to_thread(examined, *options))["dns"]  # type: ignore[arg-type]
    assert (verdict, "none outside of it" in message) == ("warning", True)


@aio.bounded(60)
async def test_a_certificate_and_a_clock_are_compared_with_the_cluster_s(tmp_path: Path) -> None:
    """Of a control plane whose clock was wrong by a quarter of a year, and by minutes."""
    here, state = Path("/proc/self/ns/net"), tmp_path / "state"
    state.mkdir()

    async def found(name: str, *options: str) -> dict[str, tuple[str, str, str]]:
        return await asyncio.to_thread(examined, here, state, f"--trust={tmp_path / name}", *options)

    async with trusted.cluster(tmp_path) as made:
        await made.join("now")
        assert (await found("now"))["certificate"][0] == "ok"
        assert (await found("now", f"--door={made.door}"))["clock"][0] == "ok"
        made.ahead_ms = -100 * DAY_MS
        await made.join("past", clock=made.now_ms)
        verdict, message, remedy = (await found("past"))["certificate"]
        assert (verdict, "days ago: nobody lets this machine in" in message) == ("failed", True)
        assert f"orchctl node join --state {state}" in remedy
        made.ahead_ms = 30 * DAY_MS
        async with made.trust(made.admin) as stub:  # the first one is good for a day
            token = (await stub.CreateToken(trust_pb2.CreateTokenRequest(role="node"))).token
        await made.join("future", token, clock=made.now_ms)
        assert "this machine's clock is behind" in (await found("future"))["certificate"][1]
        made.ahead_ms = 90_000
        verdict, message, remedy = (await found("now", f"--door={made.door}"))["clock"]
        assert verdict == "warning"
        assert pages.is_seen(pages.finding("clock"), f"{message} — {remedy}"), "docs/doctor.md has it"
        made.ahead_ms = -3_600_000
        assert (await found("now", f"--door={made.door}"))["clock"][0] == "failed"
        identity = Folder(tmp_path / "now").identity
        identity.chmod(0o644)
        assert "can be read by others than its owner" in (await found("now"))["certificate"][1]
        identity.chmod(0o600)
        (state / "node.json").write_text("another\n")
        assert "of another: the agent does not start" in (await found("now"))["certificate"][1]
        door = made.door
    verdict, message, _ = (await found("now", f"--door={door}"))["clock"]
    assert (verdict, "it cannot be compared" in message) == ("failed", True)
