"""Nodes that get a second family of addresses, and what the node makes, keeps and takes away of it."""

import sys
from collections.abc import Iterator

import pytest

from agent.adapters import rules
from agent.adapters.checks import NetworkChecks
from agent.adapters.netlink import Netlink
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support import twins
from tests.support.fake_leader import endpoint, service
from tests.support.machines import Lan, Machine
from tests.support.netlab import DUAL, INGRESS, IPV4, PORTS, TCP, Lab, LabNode
from tests.support.places import VIRTUAL, Place, names, refused

pytestmark = pytest.mark.root

NAME_PORT = 5353

VXLAN, ROUTES, AUTO = dpb.NETWORK_MODE_VXLAN, dpb.NETWORK_MODE_ROUTES, dpb.NETWORK_MODE_AUTO


def test_a_cluster_of_ipv4_becomes_one_of_both(lab: Lab, one: LabNode, two: LabNode) -> None:
    """Tasks that are there go on as they are; those that come have both. Afterwards it may be one of IPv4 again."""
    old = lab.task(one, "old-1", 2, "old")
    lab.serve(service("old", endpoint("10.112.1.2"), ports=PORTS))
    before = {node.number: node.described for node in lab.nodes}
    for node in lab.nodes:
        node.kind, node.six = DUAL, True
        node.described = twins.message(node.described, alone=False)
        for peer in node.described.peers:
            peer.subnet6 = twins.twin(peer.subnet)
        node.configure()
    assert old.ask(VIRTUAL, 80).name == "old-1"
    near, far = one.attach("new-1", 3, "new"), two.attach("new-2", 3, "new")
    lab.servers.add(near, "new-1", tcp=(80,))
    lab.servers.add(far, "new-2", tcp=(80,))
    lab.serve(service("new", endpoint("10.112.1.3"), endpoint("10.112.2.3"), number=2, ports=PORTS))
    for place in (near, far, one):
        assert {place.ask("10.113.0.2", 80).name for _ in range(20)} == {"new-1", "new-2"}
        assert place.ask("10.112.2.3", 80).name == "new-2"
    four = Place(near.path)
    assert four.ask("10.112.1.2", 80).name == "old-1"
    for node in lab.nodes:
        node.kind, node.described = IPV4, before[node.number]
        node.configure()
    assert old.ask(VIRTUAL, 80).name == "old-1"
    assert four.ask("10.112.1.2", 80).name == "old-1"
    assert "fd00:" not in one.run("ip", "-6", "route", "show", "proto", "111") + one.run("ip", "-6", "addr")


@pytest.mark.parametrize("lab", [DUAL], indirect=True)
def test_a_task_hears_of_addresses_and_ways_from_its_node_alone(lab: Lab, one: LabNode) -> None:
    """It takes no advertisements and has no address that it was not given, from its first moment on."""
    task = lab.task(one, "web-1", 2)
    assert task.run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"
    addresses = [line.split()[3] for line in task.run("ip", "-6", "-o", "addr", "show", "dev", "eth0").splitlines()]
    assert addresses == ["fd00:112:0:1::2/128"]
    assert "tentative" not in task.run("ip", "-6", "addr")


@pytest.mark.parametrize("lab", [DUAL], indirect=True)
def test_a_machine_that_has_its_way_out_from_advertisements_keeps_it(lab: Lab, one: LabNode) -> None:
    """Although it forwards now."""
    assert lab.loopbacks == ()
    assert one.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").strip() == "1"
    assert one.run("cat", "/proc/sys/net/ipv6/conf/lan/accept_ra").strip() == "2"


@pytest.mark.parametrize("lab", [DUAL], indirect=True)
def test_a_machine_that_is_a_node_no_more_has_nothing_of_ipv6(lab: Lab, one: LabNode) -> None:
    """Neither routes nor the address by which others sent to it; what it heard before it hears again."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    assert "fe80::6f72:6368:" in one.run("ip", "-6", "addr")
    one.stop()
    one.run(sys.executable, "-m", "agent.leave", f"--state={one.folder}", "--cgroup-parent=/orch-is-not-there")
    left = one.run("ip", "-6", "route") + one.run("ip", "-6", "addr")
    assert "fd00:" not in left
    assert "6f72:6368" not in left
    assert "2001:db8::1" in left
    parameters = [f"/proc/sys/net/ipv6/conf/{name}" for name in ("all/forwarding", "lan/accept_ra")]
    assert one.run("cat", *parameters).split() == ["0", "1"]
    one.start()


@pytest.mark.parametrize("lab", [DUAL], indirect=True)
def test_traffic_of_both_families_is_counted(lab: Lab, one: LabNode) -> None:
    """By virtual address; a published port has one counter for both."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)))
    names(one, times=3)
    names(lab.outside, one.address, 8080, times=2)
    names(Place(lab.outside.path), one.address, 8080, times=2)
    with one.entered():
        found = rules.counters()
    assert found[twins.twin(VIRTUAL)].requests == 3
    assert found[VIRTUAL].requests == 0
    assert found["tcp 8080"].requests == 4


@pytest.mark.parametrize("lab", [DUAL], indirect=True)
def test_a_port_that_is_closed_counts_refusals_of_both_families(lab: Lab, one: LabNode) -> None:
    """Each family has a set of its own; the port is one."""
    lab.serve(service("web", ports=(TCP, INGRESS)))
    refused(lab.outside, one.address, 8080)
    refused(Place(lab.outside.path), one.address, 8080)
    with one.entered():
        assert rules.counters()["tcp 8080"].refused == 2


@pytest.mark.parametrize("lab", [DUAL], indirect=True)
def test_a_check_tries_each_way_and_port_by_both_families(lab: Lab, one: LabNode) -> None:
    """Nobody answers questions for names here, and that is said of each family, too."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    asked = dpb.NetworkCheckRequest(network=one.described, services=one.services.values(), timeout=1000)
    findings = one.call(NetworkChecks(one.underlay, name_port=NAME_PORT).run(asked))
    mute = "nobody answers at {}:5353: no name server runs there"
    assert {f"{each.target}: {each.what}": each.problem for each in findings} == {
        "x: packets of 1500 bytes": "",
        "x: IPv6 packets of 1500 bytes": "",
        "x: UDP, a question to its name server": mute.format("10.112.2.1"),
        "x: IPv6 UDP, a question to its name server": mute.format("[fd00:112:0:2::1]"),
        "names: name server 10.112.1.1": mute.format("10.112.1.1"),
        "default/web: port 80 at 10.113.0.1": "",
        "default/web: UDP port 80 at 10.113.0.1": "",
        "default/web: port 80 at fd00:113::1": "",
        "default/web: UDP port 80 at fd00:113::1": "",
    }
    assert not [each for each in findings if each.unknown]


class DualMachine(Machine):
    """A machine with both families. It is reached by IPv4, or `by_six`."""

    def __init__(self, number: int, *, by_six: bool) -> None:
        address = f"192.0.2.{10 + number}"
        super().__init__(number, twins.twin(address) if by_six else address)
        self.plain = address
        self.subnet6 = twins.twin(self.subnet)
        self.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        self.ip(f"addr add {twins.twin(self.gateway)}/128 dev orch0 nodad")

    def peer(self) -> dpb.NetworkPeer:
        made = super().peer()
        made.subnet6 = self.subnet6
        return made

    def network(self, *others: Machine, mode: dpb.NetworkMode.ValueType, mtu: int = 0) -> dpb.NodeNetwork:
        made = super().network(*others, mode=mode, mtu=mtu)
        made.cluster_range6, made.subnet6 = "fd00:112::/48", self.subnet6
        return made

    def reaches(self, other: "DualMachine", size: int) -> bool:
        """By IPv6, from gateway address to gateway address, in one piece. On a segment that was just plugged together
        the first question for a neighbour may be lost, and the second comes after a second.
        """
        return any(self.echo(twins.twin(other.gateway), size=size, source="::") for _ in range(3))


@pytest.fixture(params=[False, True], ids=["by IPv4", "by IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[list[DualMachine]]:
    """Two machines on a segment."""
    lan, made = Lan(), [DualMachine(number, by_six=request.param) for number in (1, 2)]
    for machine in made:
        lan.plug(machine, f"{machine.plain}/24")
        machine.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")
        machine.ip(f"addr add {twins.twin(machine.plain)}/64 dev eth0 nodad")
    lan.settle()
    yield made
    for machine in made:
        machine.close()
    lan.close()


@pytest.mark.parametrize("mode", [VXLAN, ROUTES, AUTO], ids=["vxlan", "routes", "auto"])
def test_both_families_go_each_way(pair: list[DualMachine], mode: dpb.NetworkMode.ValueType) -> None:
    """Packets as large as they may be; what is there already is not touched again, and what was lost is put right."""
    first, second = pair
    for machine in pair:
        assert machine.configure(*pair, mode=mode) > 0
    assert first.mtu == 1500 - {VXLAN: 70 if ":" in first.address else 50}.get(mode, 0)
    assert first.reaches(second, first.mtu)
    assert first.echo(second.gateway, size=first.mtu)
    assert [machine.configure(*pair, mode=mode) for machine in pair] == [0, 0], "nothing is changed"
    first.ip(f"route delete {second.subnet6}")
    assert first.configure(*pair, mode=mode) == 1
    assert first.reaches(second, first.mtu)


def test_another_mode_leaves_nothing_of_the_one_before(pair: list[DualMachine]) -> None:
    """No route, no device, no address."""
    first, second = pair
    for mode in (ROUTES, VXLAN, ROUTES):
        for machine in pair:
            machine.configure(*pair, mode=mode)
        assert first.reaches(second, 1280)
        routes = first.run("ip", "-6", "route", "show", "proto", "111").splitlines()
        assert len(routes) == 1
        assert ("orch-vx" in routes[0]) == (mode == VXLAN)
        by_link_local = mode == ROUTES and ":" not in first.address
        assert ("6f72:6368" in first.run("ip", "-6", "addr")) == by_link_local
    first.configure(first, mode=ROUTES)
    with Netlink(first.path) as netlink:
        assert not [address for address, _ in netlink.address_pairs() if "6f72:6368" in address]
    assert first.leftovers() == []
