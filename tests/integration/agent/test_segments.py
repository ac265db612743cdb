"""Who reaches whom on real nodes, by whatever way."""

import select
import socket

import pytest

from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import EVERY_KIND, INGRESS, ONLY_IPV4, OUTSIDE, PORTS, TCP, TRUSTED, Lab, LabNode
from tests.support.places import VIRTUAL, prohibited

pytestmark = pytest.mark.root


@EVERY_KIND
def test_tasks_reach_each_other_inside_a_network_alone(lab: Lab, one: LabNode, two: LabNode) -> None:
    """On one node and between two; by their own addresses and through a service; and the nodes reach all."""
    places = {
        "blue": [lab.task(one, "blue-1", 2, "blue"), lab.task(two, "blue-2", 2, "blue")],
        "red": [lab.task(one, "red-1", 3, "red"), lab.task(two, "red-2", 3, "red")],
        "both": [lab.task(one, "both-1", 4, "both")],
    }
    lab.serve(
        service("blue", *map(endpoint, ("10.112.1.2", "10.112.2.2")), ports=PORTS, networks=["default/blue"]),
        service("red", *map(endpoint, ("10.112.1.3", "10.112.2.3")), ports=PORTS, number=2, networks=["a/red"]),
        service("both", endpoint("10.112.1.4", ready=False), number=3, networks=["a/red", "default/blue"]),
    )
    for place in places["blue"]:
        assert place.ask("10.112.1.2", 80).name == "blue-1"
        assert place.ask("10.112.2.2", 80).name == "blue-2"
        assert place.ask("10.112.1.4", 80).name == "both-1"
        for stranger in ("10.112.1.3", "10.112.2.3", "10.113.0.2"):
            prohibited(place, stranger)
    for place in places["both"]:
        assert {place.ask(f"10.112.{node}.{task}", 80).name for node in (1, 2) for task in (2, 3)} == {
            "blue-1",
            "blue-2",
            "red-1",
            "red-2",
        }
    assert one.ask("10.112.2.3", 80).client == one.gateway, "a node is let in everywhere"
    assert one.ask("10.112.1.3", 80).name == "red-1"


@EVERY_KIND
def test_allow_rules_open_single_ports(lab: Lab, one: LabNode, two: LabNode) -> None:
    """To one service, and in one direction."""
    lab.task(one, "db-1", 2, "db")
    web, other = lab.task(two, "web-1", 3, "web"), lab.task(two, "other-1", 4, "other")
    closed = pb.Port(target=81, protocol=pb.PROTOCOL_TCP)
    allow = [dpb.AllowedSource(service_id="id-of-web", ports=[TCP])]
    lab.serve(
        service("db", endpoint("10.112.1.2"), ports=(TCP, closed), networks=["default/db"], allow=allow),
        service("web", endpoint("10.112.2.3"), ports=PORTS, number=2),
        service("other", endpoint("10.112.2.4"), number=3),
    )
    assert web.ask("10.112.1.2", 80).name == "db-1"
    assert web.ask(VIRTUAL, 80).name == "db-1"
    prohibited(web, "10.112.1.2", 81)
    prohibited(other, "10.112.1.2")
    prohibited(one.place("db-1"), "10.112.2.3")


@EVERY_KIND
def test_nobody_outside_reaches_tasks_by_their_addresses(lab: Lab, one: LabNode, two: LabNode) -> None:
    """Neither directly nor by way of another node; unless it is trusted."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    lab.outside.ip("route", "add", "10.112.0.0/16", "via", one.address)
    prohibited(lab.outside, "10.112.1.2")
    lab.outside.ip("route", "replace", "10.112.0.0/16", "via", two.address)
    with pytest.raises(OSError):
        lab.outside.ask("10.112.1.2", 80)
    lab.outside.ip("addr", "add", f"{TRUSTED}/24", "dev", "lan")
    for node, seen in ((two, two.gateway), (one, TRUSTED)):
        lab.outside.ip("route", "replace", "10.112.0.0/16", "via", node.address)
        assert lab.outside.ask("10.112.1.2", 80, source=TRUSTED).client == seen


@EVERY_KIND
def test_internal_tasks_reach_nothing_outside(lab: Lab, one: LabNode) -> None:
    """But their network, and they answer whoever comes through a published port; others go out as the node."""
    lab.servers.add(lab.outside, "outside", tcp=(80,))
    lab.servers.add(one, "node", tcp=(99,))
    inner, web = lab.task(one, "inner-1", 2, "inner"), lab.task(one, "web-1", 3)
    lab.serve(
        service("inner", endpoint("10.112.1.2"), ports=(INGRESS,), internal=True),
        service("web", endpoint("10.112.1.3"), ports=PORTS, number=2),
    )
    assert web.ask(OUTSIDE, 80).client == one.address
    prohibited(inner, OUTSIDE)
    prohibited(inner, one.address, 99)
    assert inner.ask("10.112.1.3", 80).name == "web-1"
    assert lab.outside.ask(one.address, 8080).client == OUTSIDE


@EVERY_KIND
def test_a_task_has_its_own_address_and_no_other(lab: Lab, one: LabNode) -> None:
    """What it sends with any other source is dropped, also with that of a task that would be let in."""
    web, bad = lab.task(one, "web-1", 2), lab.task(one, "bad-1", 3)
    lab.serve(service("web", *map(endpoint, ("10.112.1.2", "10.112.1.3", "10.112.1.9")), ports=PORTS))
    bad.ip("addr", "add", "10.112.1.9/32", "dev", "lo")
    with web.open(socket.SOCK_DGRAM) as hears, bad.open(socket.SOCK_DGRAM) as says:
        hears.bind((web.at("0.0.0.0"), 5000))
        with bad.open(socket.SOCK_DGRAM, source="10.112.1.9") as forges:
            forges.sendto(b"forged", (web.at("10.112.1.2"), 5000))
        says.sendto(b"honest", (web.at("10.112.1.2"), 5000))
        data, (source, *_) = hears.recvfrom(100)
        assert (data, source) == (b"honest", web.at("10.112.1.3"))


@ONLY_IPV4
def test_nobody_reaches_the_nodes_own_localhost(lab: Lab, one: LabNode) -> None:
    """Although its addresses may come in from outside now, as answers."""
    lab.servers.add(one, "node", tcp=(99,))
    web = lab.task(one, "web-1", 2)
    for place, gateway in ((web, one.gateway), (lab.outside, one.address)):
        place.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
        place.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        place.run("ip", "route", "add", "127.0.0.1/32", "via", gateway)
        with pytest.raises(TimeoutError):
            place.ask("127.0.0.1", 99)
    assert one.ask("127.0.0.1", 99).name == "node"


@EVERY_KIND
def test_a_stranger_is_not_told_to_give_up(lab: Lab, one: LabNode) -> None:
    """A task that this node has not heard of yet: its connection is made as soon as it has."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    fresh = lab.task(lab.nodes[1], "new-1", 2, "new")
    with fresh.open() as client:
        client.setblocking(False)
        client.connect_ex((fresh.at("10.112.1.2"), 80))
        assert not select.select([], [client], [], 0.2)[1], "neither let in nor refused"
        lab.serve(service("new", endpoint("10.112.2.2"), number=2))
        _, connected, _ = select.select([], [client], [], 5)
        assert connected
        client.settimeout(2)
        assert client.recv(100).decode() == f"web-1 {fresh.at('10.112.2.2')}"
