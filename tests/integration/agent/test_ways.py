"""The way between nodes under people who meddle with it: it is put right without being asked to."""

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters import overlay
from agent.adapters.netlink import Netlink
from agent.core.overlay import DEVICE, PORT, VNI
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.integration.agent.conftest import Node, led
from tests.support.aio import bounded
from tests.support.fake_leader import task, template
from tests.support.netlab import Lab, LabNode
from tests.support.places import Place
from tests.support.waiting import until

pytestmark = pytest.mark.root

VXLAN, ROUTES = dpb.NETWORK_MODE_VXLAN, dpb.NETWORK_MODE_ROUTES


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Two nodes that know each other."""
    made = Lab(tmp_path)
    yield made
    made.close()


def use(lab: Lab, mode: dpb.NetworkMode.ValueType) -> LabNode:
    """All nodes in this mode; one of them."""
    for node in lab.nodes:
        node.described.mode = mode
        node.configure()
    return lab.nodes[0]


def state(node: LabNode) -> list[str]:
    """What there is of the way to the other node, without the number that each new device gets."""
    said = node.run("sh", "-ec", f"ip route show proto 111; ip neigh show dev {DEVICE}; bridge fdb show dev {DEVICE}")
    return sorted([*said.splitlines(), device(node).partition(": ")[2]])


def device(node: LabNode) -> str:
    return node.run("ip", "-o", "link", "show", DEVICE)


@pytest.mark.parametrize(
    "command",
    [
        f"ip link del {DEVICE}",
        f"ip link set {DEVICE} down",
        f"ip link set {DEVICE} mtu 1000",
        f"ip link set {DEVICE} address 02:00:00:00:00:09",
        f"bridge fdb del 02:6f:0a:70:02:01 dev {DEVICE} self",
        f"bridge fdb replace 02:6f:0a:70:02:01 dev {DEVICE} dst 192.0.2.100 self",
        f"bridge fdb append 00:00:00:00:00:00 dev {DEVICE} dst 192.0.2.100 self",
        f"ip neigh flush all nud permanent dev {DEVICE}",
        f"ip neigh replace 10.112.2.1 lladdr 02:00:00:00:00:07 dev {DEVICE} nud permanent",
        "ip route del 10.112.2.0/24",
        "ip route flush proto 111",
    ],
)
def test_what_somebody_broke_is_put_right(lab: Lab, command: str) -> None:
    """Within a moment, and it is the same as before."""
    node = use(lab, VXLAN)
    before = state(node)
    node.run("sh", "-c", command)
    until(lambda: is_whole(node, before), what=f"{command} is put right", timeout_s=5)


def is_whole(node: LabNode, before: list[str]) -> bool:
    try:
        return state(node) == before
    except AssertionError:  # there is no device at this moment
        return False


def test_plain_routes_come_back_with_the_cable(lab: Lab) -> None:
    """A device that is put down takes its routes along, and nobody brings them back but us."""
    node = use(lab, ROUTES)
    node.run("ip", "link", "set", "lan", "down")
    assert "10.112.2.0" not in node.run("ip", "route")
    node.run("ip", "link", "set", "lan", "up")
    until(lambda: "10.112.2.0/24 via 192.0.2.2" in node.run("ip", "route"), what="the route is back")


def test_the_size_follows_the_cable(lab: Lab) -> None:
    node = use(lab, VXLAN)
    node.run("ip", "link", "set", "lan", "mtu", "1400")
    until(lambda: "mtu 1350 " in device(node), what="the tunnel is narrower")
    assert node.network._ways.mtu == 1350


def test_tasks_talk_through_the_tunnel_and_nothing_is_left(lab: Lab) -> None:
    """With the firewall and the links of real nodes around it; another mode leaves nothing of it."""
    node = use(lab, VXLAN)
    here = lab.task(node, "here", 2)
    lab.task(lab.nodes[1], "there", 2)
    services = {
        "web": dpb.NetworkService(
            id="web",
            namespace="default",
            name="web",
            networks=["default/default"],
            endpoints=[
                dpb.Endpoint(task_id="here", node_id="1", address="10.112.1.2", ready=True),
                dpb.Endpoint(task_id="there", node_id="2", address="10.112.2.2", ready=True),
            ],
        )
    }
    lab.serve(*services.values())
    answer = here.ask("10.112.2.2", 80)
    assert (answer.name, answer.client) == ("there", "10.112.1.2")
    use(lab, ROUTES)
    assert here.ask("10.112.2.2", 80).name == "there"
    assert DEVICE not in node.run("ip", "link") + node.run("ip", "route")
    use(lab, VXLAN)
    node.stop()
    with Netlink(str(node.path)) as netlink:
        overlay.leave(netlink)
    assert DEVICE not in node.run("ip", "link")
    assert node.run("ip", "route", "show", "proto", "111") == ""
    node.start()


def test_only_nodes_speak_through_the_tunnel(lab: Lab) -> None:
    """A task, or somebody outside, who makes a packet of the tunnel by hand would pass every rule of the network."""
    node, other = use(lab, VXLAN), lab.nodes[1]
    here = lab.task(node, "here", 2)
    for place, target in (
        (here, other.address),
        (here, other.gateway),
        (here, node.address),
        (lab.outside, other.address),
    ):
        before = received(lab.nodes)
        forge(place, target)
        # A node's own packet that comes after it has arrived, so it would have, too.
        sent = 0
        while received(lab.nodes) == before:
            sent += 1
            assert sent < 100, "nodes themselves are not heard"
            forge(node, other.address)
        assert received(lab.nodes) - before <= sent, f"{place.path} was heard at {target}"


def forge(place: Place, target: str) -> None:
    """A packet of the tunnel to the second node. What is inside makes no sense."""
    inner = bytes.fromhex("026f0a700201026f0a7001010800") + bytes(60)
    with place.open(socket.SOCK_DGRAM) as sender:
        sender.sendto(struct.pack("!II", 0x08 << 24, VNI << 8) + inner, (target, PORT))


def received(nodes: list[LabNode]) -> int:
    """Packets that came out of tunnels."""
    said = [json.loads(node.run("ip", "-json", "-s", "link", "show", DEVICE))[0]["stats64"]["rx"] for node in nodes]
    return sum(one["packets"] + one["errors"] + one["dropped"] for one in said)


@bounded(60)
async def test_a_node_whose_network_cannot_be_says_why(node: Node, store: ImageStore) -> None:
    """With both addresses and all numbers, in the status of the task that waits for it; and it goes on by itself."""
    node.run("ip", "addr", "add", "10.112.200.9/32", "dev", "lo")
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template())
        why = "device lo has the address 10.112.200.9, which lies in the cluster's range 10.112.0.0/16"
        await leader.until("web-1-a", lambda now: why in now.message, what="the address is named")
        # A range without the address: if it were taken away instead, the network as it was could be made at once.
        leader.network.cluster_range = "10.112.0.0/17"
        leader.network.mtu = 100
        await leader.announce_network()
        why = "an MTU of 100 bytes is too small: the least is 576"
        await leader.until("web-1-a", lambda now: why in now.message, what="the size is named")
        leader.network.mtu = 1200
        await leader.announce_network()
        await leader.running("web-1-a")
        assert "mtu 1200 " in node.run("sh", "-c", "ip -o link | grep orch-")
