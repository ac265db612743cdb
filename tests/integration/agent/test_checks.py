"""What the check of the network finds, on machines whose network the test breaks."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.adapters.checks import NetworkChecks
from agent.adapters.echo import Echo
from deploy.local import network
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from runtime import syscalls
from tests.support import machines
from tests.support.machines import Lan, Machine
from tests.support.wire import Wire

pytestmark = pytest.mark.root

VXLAN = dpb.NETWORK_MODE_VXLAN
NAME_PORT = 5353


@pytest.fixture
def pair() -> Iterator[tuple[Lan, Machine, Machine]]:
    """Two machines on a segment, which reach each other by VXLAN."""
    lan, first, second = Lan(), Machine(1, "192.0.2.11"), Machine(2, "192.0.2.12")
    machines.join(lan, first, second)
    for machine in (first, second):
        machine.configure(first, second, mode=VXLAN)
    yield lan, first, second
    for space in (first, second, lan):
        space.close()


def check(machine: Machine, other: Machine, *services: dpb.NetworkService) -> dict[str, str]:
    """What is wrong, by what was tried, as an agent on that machine finds it."""
    asked = dpb.NetworkCheckRequest(network=machine.network(other, mode=VXLAN), services=services, timeout=300)

    async def run() -> list[cpb.NetworkFinding]:
        there = ThreadPoolExecutor(1, initializer=lambda: syscalls.setns(machine.fd, syscalls.CLONE_NEWNET))
        asyncio.get_running_loop().set_default_executor(there)
        return await NetworkChecks(machine.address, name_port=NAME_PORT).run(asked)

    with network.inside(machine.fd):
        findings = asyncio.run(run())
    for finding in findings:
        said = (finding.problem, finding.unknown, finding.microseconds)
        assert sum(map(bool, said)) == 1, "it works and took some time, or does not, or nobody knows"
    return {f"{finding.target}: {finding.what}": finding.problem or _unknown(finding) for finding in findings}


def _unknown(finding: cpb.NetworkFinding) -> str:
    return f"unknown: {finding.unknown}" if finding.unknown else ""


def test_all_is_well(pair: tuple[Lan, Machine, Machine]) -> None:
    """Nothing is wrong but for the name server, which nobody has started here, but on the other one."""
    _, first, second = pair
    with name_server(second, ""):
        found = check(first, second)
    assert found == {
        "n2: packets of 1450 bytes": "",
        "n2: UDP, a question to its name server": "",
        "names: name server 10.112.1.1": "nobody answers at 10.112.1.1:5353: no name server runs there",
    }


def test_a_segment_with_less_room_is_told_with_the_size_that_passes(pair: tuple[Lan, Machine, Machine]) -> None:
    lan, first, second = pair
    lan.ip("link set port2 mtu 1400")
    problem = check(first, second)["n2: packets of 1450 bytes"]
    assert problem == "packets of 1450 bytes do not pass; the largest that do have 1350"


def test_a_device_of_the_tunnel_with_less_room_is_told(pair: tuple[Lan, Machine, Machine]) -> None:
    """Somebody has changed it by hand."""
    _, first, second = pair
    first.ip("link set orch-vx mtu 1200")
    problem = check(first, second)["n2: packets of 1450 bytes"]
    assert problem == "packets of 1450 bytes do not pass; the largest that do have 1200"


def test_a_node_that_does_not_answer_is_told(pair: tuple[Lan, Machine, Machine]) -> None:
    _, first, second = pair
    second.ip("link set eth0 down")
    found = check(first, second)
    assert found["n2: packets of 1450 bytes"] == "no answer from 10.112.2.1 within 0.3 s"
    assert found["n2: UDP, a question to its name server"] == "no answer from 10.112.2.1:5353 within 0.3 s"


def test_a_node_that_only_udp_does_not_reach_is_told(pair: tuple[Lan, Machine, Machine]) -> None:
    """A firewall, or a network card that computes wrong checksums in a tunnel: pings pass all the same."""
    _, first, second = pair
    second.run("nft", "add table inet wall; add chain inet wall in { type filter hook input priority -10; }")
    second.run("nft", f"add rule inet wall in iifname != lo ip daddr {second.gateway} meta l4proto udp drop")
    with name_server(second, ""):
        found = check(first, second)
    assert found["n2: packets of 1450 bytes"] == ""
    assert found["n2: UDP, a question to its name server"] == "no answer from 10.112.2.1:5353 within 0.3 s"


def test_udp_ports_answer_refuse_or_say_nothing(pair: tuple[Lan, Machine, Machine]) -> None:
    """The last one is no failure: nobody knows whether it has heard anything."""
    _, first, second = pair
    second.ip("addr add 10.201.0.1/32 dev orch0")
    first.ip(f"route add 10.201.0.1 via {second.address}")
    ports = [pb.Port(target=number, protocol=pb.PROTOCOL_UDP) for number in (53, 54, 55)]
    with second.socket(socket.SOCK_DGRAM) as answering, second.socket(socket.SOCK_DGRAM) as silent:
        answering.bind(("10.201.0.1", 53))
        silent.bind(("10.201.0.1", 54))
        thread = threading.Thread(target=lambda: answering.sendto(b"!", answering.recvfrom(10)[1]))
        thread.start()
        service = dpb.NetworkService(name="voice", namespace="default", address="10.201.0.1", ports=ports)
        found = check(first, second, service)
        thread.join(10)
        assert silent.recv(10) == b""
    assert {what: said for what, said in found.items() if "port" in what} == {
        "default/voice: UDP port 53 at 10.201.0.1": "",
        "default/voice: UDP port 54 at 10.201.0.1": "unknown: not refused, and no answer within 0.3 s, "
        "which UDP does not promise",
        "default/voice: UDP port 55 at 10.201.0.1": "Connection refused",
    }


def test_a_node_without_its_own_place_is_told(pair: tuple[Lan, Machine, Machine]) -> None:
    """The gateway's address has gone, or the node's own one."""
    _, first, second = pair
    first.ip("addr del 10.112.1.1/32 dev orch0")
    assert check(first, second)["n2: packets of 1450 bytes"] == "Cannot assign requested address"
    first.ip("addr del 192.0.2.11/24 dev eth0")
    assert "no device of this node has the address 192.0.2.11" in check(first, second)["this node: its network"]


def test_services_are_connected_to(pair: tuple[Lan, Machine, Machine]) -> None:
    """Each TCP port of each that has an address: one that listens, one that does not, one that swallows."""
    _, first, second = pair
    second.ip("addr add 10.201.0.1/32 dev orch0", "addr add 10.201.0.2/32 dev orch0")
    first.ip(*(f"route add 10.201.0.{last} via {second.address}" for last in (1, 2, 3)))
    ports = [pb.Port(target=80), pb.Port(target=81, protocol=pb.PROTOCOL_TCP)]
    second.run("ip", "route", "add", "blackhole", "10.201.0.3/32")
    with second.socket() as listener:
        listener.bind(("10.201.0.1", 80))
        listener.listen()
        found = check(
            first,
            second,
            dpb.NetworkService(name="web", namespace="default", address="10.201.0.1", ports=ports),
            dpb.NetworkService(name="lost", namespace="default", address="10.201.0.3", ports=ports[:1]),
            dpb.NetworkService(name="headless", namespace="default", ports=ports[:1]),
        )
    assert {what: problem for what, problem in found.items() if "port" in what} == {
        "default/web: port 80 at 10.201.0.1": "",
        "default/web: port 81 at 10.201.0.1": "Connection refused",
        "default/lost: port 80 at 10.201.0.3": "no connection within 0.3 s",
    }


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("10.201.0.1", ""),
        ("10.201.0.9", "the name server answers 10.201.0.9 instead of 10.201.0.1"),
        ("", "the name server answers with code 3 instead of 10.201.0.1"),
    ],
)
def test_names_are_asked_for(pair: tuple[Lan, Machine, Machine], answer: str, problem: str) -> None:
    """An answer must be the service's address."""
    _, first, second = pair
    web = dpb.NetworkService(name="web", namespace="shop", address="10.201.0.1")
    with name_server(first, answer):
        found = check(first, second, web)
    assert found["names: name server 10.112.1.1"] == ""
    assert found["shop/web: name web.shop.orch"] == problem


@contextlib.contextmanager
def name_server(machine: Machine, address: str) -> Iterator[None]:
    """Answers every question at the gateway's address with one address, or that there is no such name."""
    with machine.socket(socket.SOCK_DGRAM) as server:
        server.bind((machine.gateway, NAME_PORT))
        thread = threading.Thread(target=_serve, args=(server, address))
        thread.start()
        try:
            yield
        finally:
            with machine.socket(socket.SOCK_DGRAM) as last:
                last.sendto(b"", (machine.gateway, NAME_PORT))
            thread.join(10)


def _serve(server: socket.socket, address: str) -> None:
    while True:
        query, sender = server.recvfrom(512)
        if not query:
            return
        flags, count = (b"\x84\x00", 1) if address else (b"\x84\x03", 0)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton(address) if address else b""
        counts = struct.pack("!HHHH", 1, count, 0, 0)
        server.sendto(query[:2] + flags + counts + query[12:] + record, sender)


@pytest.mark.parametrize("most", [100, 576, 1249, 1250, 1349, 1499])
def test_the_largest_packet_is_found_to_the_byte(most: int) -> None:
    """Of all sizes, over a cable that takes no larger ones."""
    lan, machine = Lan(), Machine(1, "192.0.2.11")
    other = Machine(2, "192.0.2.12")
    machines.join(lan, other)
    wire = Wire()
    wire.largest_bytes = most + 14
    with lan.wired(machine, "192.0.2.11/24", wire), network.inside(machine.fd):
        assert asyncio.run(_largest(other.address)) == most
    for space in (machine, other, lan):
        space.close()


async def _largest(target: str) -> int:
    echo = Echo("192.0.2.11")
    try:
        return await echo.largest(target, below=1500, timeout_s=0.5)
    finally:
        echo.close()
