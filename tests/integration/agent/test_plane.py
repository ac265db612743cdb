"""The data plane on real nodes: who answers, from which address the question seems to come, and who is refused."""

import collections
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from agent.adapters import rules
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import OUTSIDE, Lab, LabNode, Place, tcp, udp

pytestmark = pytest.mark.root

TCP = pb.Port(target=80, protocol=pb.PROTOCOL_TCP)
UDP = pb.Port(target=80, protocol=pb.PROTOCOL_UDP)
INGRESS = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
INGRESS_UDP = pb.Port(target=80, protocol=pb.PROTOCOL_UDP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
PORTS = (TCP, UDP)
VIRTUAL = "10.113.0.1"
LOCAL = pb.EXTERNAL_TRAFFIC_POLICY_LOCAL


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with structlog.testing.capture_logs() as logged:
        made = Lab(tmp_path)
        try:
            yield made
        finally:
            made.close()
    assert not [line for line in logged if "was refused" in line["event"]], "nft takes every change as it is"


@pytest.fixture
def one(lab: Lab) -> LabNode:
    return lab.nodes[0]


@pytest.fixture
def two(lab: Lab) -> LabNode:
    return lab.nodes[1]


def names(place: Place, host: str = VIRTUAL, port: int = 80, times: int = 40) -> collections.Counter[str]:
    return collections.Counter(place.ask(host, port).name for _ in range(times))


def refused(place: Place, host: str, port: int) -> None:
    """At once."""
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        place.ask(host, port)
    assert time.monotonic() - began < 1


def prohibited(place: Place, host: str, port: int = 80) -> None:
    """At once, and said to be so."""
    began = time.monotonic()
    with pytest.raises(OSError, match="No route to host"):
        place.ask(host, port)
    assert time.monotonic() - began < 1


def test_a_virtual_address_stands_for_all_ready_tasks(lab: Lab, one: LabNode, two: LabNode) -> None:
    """From a task on either node, from a node itself; at random, and never for one that is not ready."""
    here, there = lab.task(one, "web-1", 2), lab.task(two, "web-2", 2)
    lab.task(two, "web-3", 3)
    client = lab.task(one, "client-1", 9, "client")
    members = [endpoint("10.112.1.2"), endpoint("10.112.2.2"), endpoint("10.112.2.3", ready=False)]
    lab.serve(service("web", *members, ports=PORTS), service("client", endpoint("10.112.1.9"), number=2))
    for place in (client, here, there, one, two):
        found = names(place)
        assert set(found) == {"web-1", "web-2"}, place.path
        assert min(found.values()) > 5, "at random"
    assert client.ask(VIRTUAL, 80).client == "10.112.1.9", "tasks see each other's own addresses"
    assert {client.ask_udp(VIRTUAL, 80).name for _ in range(40)} == {"web-1", "web-2"}


def test_a_task_reaches_itself_through_its_service(lab: Lab, one: LabNode) -> None:
    """With the node's address as the source, because it would not believe its own; nobody else's is changed."""
    web = lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    assert web.ask(VIRTUAL, 80).client == one.gateway
    assert web.ask_udp(VIRTUAL, 80).name == "web-1"
    assert one.ask(VIRTUAL, 80).name == "web-1"


def test_without_a_ready_task_everybody_is_refused_at_once(lab: Lab, one: LabNode, two: LabNode) -> None:
    """Tasks, the node, and whoever comes from outside; and so is a port that the service does not have."""
    client = lab.task(one, "client-1", 9, "client")
    members = [endpoint("10.112.1.2", ready=False)]
    lab.serve(service("web", *members, ports=(*PORTS, INGRESS, INGRESS_UDP)))
    for place in (client, one):
        refused(place, VIRTUAL, 80)
        refused(place, VIRTUAL, 81)
        refused(place, "10.113.7.7", 80)
        with pytest.raises((ConnectionRefusedError, PermissionError)):  # the latter is what a node's own process gets
            place.ask_udp(VIRTUAL, 80)
    for place, host in ((lab.outside, two.address), (one, "127.0.0.1"), (client, one.address)):
        refused(place, host, 8080)
        with pytest.raises(ConnectionRefusedError):
            place.ask_udp(host, 8080)


def test_one_client_keeps_its_task(lab: Lab, one: LabNode) -> None:
    """With sessionAffinity client-ip; different clients get different ones, and an agent's restart changes nothing."""
    members = []
    for number in range(2, 6):
        lab.task(one, f"web-{number}", number)
        members.append(endpoint(f"10.112.1.{number}"))
    clients = [lab.task(one, f"client-{number}", 100 + number, "client") for number in range(8)]
    affine = service("web", *members, ports=PORTS, session_affinity=pb.SESSION_AFFINITY_CLIENT_IP)
    lab.serve(affine, service("client", *(endpoint(f"10.112.1.{100 + number}") for number in range(8)), number=2))
    chosen = []
    for client in clients:
        (only,) = names(client, times=10)
        chosen.append(only)
    assert len(set(chosen)) > 1
    one.stop()
    one.start()
    one.configure()
    assert [client.ask(VIRTUAL, 80).name for client in clients] == chosen


def test_a_virtual_address_answers_a_ping(lab: Lab, one: LabNode) -> None:
    """As long as its service is there."""
    client = lab.task(one, "client-1", 9, "client")
    lab.serve(service("web", ports=PORTS), service("client", endpoint("10.112.1.9"), number=2))
    assert ping(client, VIRTUAL)
    assert ping(one, VIRTUAL)
    assert not ping(client, "10.113.0.77")


def ping(place: Place, host: str) -> bool:
    with place.entered():
        asking = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with asking:
        asking.settimeout(1)
        asking.connect((host, 0))
        asking.send(bytes.fromhex("0800f7ff00000000"))
        try:
            return asking.recv(100)[20] == 0
        except OSError:
            return False


def test_an_ingress_port_is_on_every_node(lab: Lab, one: LabNode, two: LabNode) -> None:
    """The client's address is seen where the task is on the node that was asked; else it is that node's."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(INGRESS, INGRESS_UDP)))
    assert lab.outside.ask(one.address, 8080).client == OUTSIDE
    assert lab.outside.ask(two.address, 8080).client == two.gateway
    assert lab.outside.ask_udp(one.address, 8080).client == OUTSIDE
    assert lab.outside.ask_udp(two.address, 8080).client == two.gateway
    for node in (one, two):
        for host in ("127.0.0.1", node.address, node.gateway):
            assert node.ask(host, 8080).name == "web-1", (node.number, host)
        assert node.ask_udp("127.0.0.1", 8080).name == "web-1"
    assert one.ask(two.address, 8080).name == "web-1"
    lab.task(two, "web-2", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), endpoint("10.112.2.2"), ports=(INGRESS, INGRESS_UDP)))
    assert set(names(lab.outside, one.address, 8080)) == {"web-1", "web-2"}


def test_tasks_reach_published_ports_too(lab: Lab, one: LabNode, two: LabNode) -> None:
    """Whatever networks they are in: who publishes a port lets everybody in."""
    lab.task(one, "web-1", 2)
    lab.task(two, "web-2", 2)
    near, far = lab.task(one, "other-1", 9, "other"), lab.task(two, "other-2", 9, "other")
    lab.serve(
        service("web", endpoint("10.112.1.2"), endpoint("10.112.2.2"), ports=(INGRESS,)),
        service("other", endpoint("10.112.1.9"), endpoint("10.112.2.9"), number=2, networks=["default/else"]),
    )
    for place in (near, far):
        for node in (one, two):
            assert set(names(place, node.address, 8080)) == {"web-1", "web-2"}
    assert set(names(near, one.gateway, 8080)) == {"web-1", "web-2"}
    prohibited(near, "10.112.1.2")


def test_policy_local_serves_where_the_task_is(lab: Lab, one: LabNode, two: LabNode) -> None:
    """With the client's address; a node without a task refuses."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(INGRESS,), external_traffic_policy=LOCAL))
    assert lab.outside.ask(one.address, 8080).client == OUTSIDE
    refused(lab.outside, two.address, 8080)
    refused(two, "127.0.0.1", 8080)


def test_a_host_port_is_on_the_tasks_node_alone(lab: Lab, one: LabNode, two: LabNode) -> None:
    """From outside and from the node, for as long as the task is there."""
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    lab.task(one, "web-1", 2, "web", tcp(8080), udp(8080))
    assert lab.outside.ask(one.address, 8080).client == OUTSIDE
    assert lab.outside.ask_udp(one.address, 8080).client == OUTSIDE
    assert one.ask("127.0.0.1", 8080).name == "web-1"
    refused(lab.outside, two.address, 8080)
    one.detach("web-1")
    refused(lab.outside, one.address, 8080)
    refused(one, "127.0.0.1", 8080)


def test_udp_goes_elsewhere_when_a_task_takes_no_more(lab: Lab, one: LabNode) -> None:
    """Also for a client that keeps its socket; TCP connections stay."""
    lab.task(one, "web-1", 2)
    lab.task(one, "web-2", 3)
    client = lab.task(one, "client-1", 9, "client")
    both = [endpoint("10.112.1.2"), endpoint("10.112.1.3")]
    friend = service("client", endpoint("10.112.1.9"), number=2)
    lab.serve(service("web", both[0], ports=(*PORTS, INGRESS_UDP)), friend)
    with client.open(socket.SOCK_DGRAM) as inner, lab.outside.open(socket.SOCK_DGRAM) as outer:
        for _ in range(2):
            assert client.ask_udp(VIRTUAL, 80, inner).name == "web-1"
            assert lab.outside.ask_udp(one.address, 8080, outer).name == "web-1"
        lab.serve(service("web", both[1], ports=(*PORTS, INGRESS_UDP)))
        assert client.ask_udp(VIRTUAL, 80, inner).name == "web-2"
        assert lab.outside.ask_udp(one.address, 8080, outer).name == "web-2"


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
    prohibited(Place(Path(one.network.namespace_of("db-1"))), "10.112.2.3")


def test_nobody_outside_reaches_tasks_by_their_addresses(lab: Lab, one: LabNode, two: LabNode) -> None:
    """Neither directly nor by way of another node."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    lab.outside.run("ip", "route", "add", "10.112.0.0/16", "via", one.address)
    prohibited(lab.outside, "10.112.1.2")
    lab.outside.run("ip", "route", "replace", "10.112.0.0/16", "via", two.address)
    with pytest.raises(OSError):
        lab.outside.ask("10.112.1.2", 80)


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


def test_a_task_has_its_own_address_and_no_other(lab: Lab, one: LabNode) -> None:
    """What it sends with any other source is dropped, also with that of a task that would be let in."""
    web, bad = lab.task(one, "web-1", 2), lab.task(one, "bad-1", 3)
    lab.serve(service("web", *map(endpoint, ("10.112.1.2", "10.112.1.3", "10.112.1.9")), ports=PORTS))
    bad.run("ip", "addr", "add", "10.112.1.9/32", "dev", "lo")
    with web.open(socket.SOCK_DGRAM) as hears, bad.open(socket.SOCK_DGRAM) as says:
        hears.bind(("0.0.0.0", 5000))
        with bad.open(socket.SOCK_DGRAM, source="10.112.1.9") as forges:
            forges.sendto(b"forged", ("10.112.1.2", 5000))
        says.sendto(b"honest", ("10.112.1.2", 5000))
        data, (source, _) = hears.recvfrom(100)
        assert (data, source) == (b"honest", "10.112.1.3")


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


def test_a_stranger_is_not_told_to_give_up(lab: Lab, one: LabNode) -> None:
    """A task that this node has not heard of yet: its connection is made as soon as it has."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    fresh = lab.task(lab.nodes[1], "new-1", 2, "new")
    with fresh.open() as client:
        client.setblocking(False)
        client.connect_ex(("10.112.1.2", 80))
        lab.serve(service("new", endpoint("10.112.2.2"), number=2))
        _, connected, _ = select.select([], [client], [], 5)
        assert connected
        client.settimeout(2)
        assert client.recv(100) == b"web-1 10.112.2.2"


def test_a_flushed_table_is_made_anew(lab: Lab, one: LabNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and whatever was done to it; tables of others are left alone."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)))
    one.run("nft", "add table inet mine; add chain inet mine kept; add rule inet mine kept counter")
    monkeypatch.setattr(rules, "MEND_INTERVAL_S", 0.0)
    before = table(one)
    for harm in (
        "delete table inet orch",
        "flush table inet orch",
        "flush chain inet orch inbound",
        "delete element inet orch services { 10.113.0.1 . tcp . 80 }",
        "add element inet orch services { 10.113.0.9 . tcp . 80 : goto endpoints-any-1 }",
    ):
        one.run("nft", harm)
        deadline = time.monotonic() + 3
        while table(one) != before:
            assert time.monotonic() < deadline, harm
            time.sleep(0.01)
        assert one.ask(VIRTUAL, 80).name == "web-1"
    assert "counter packets 0" in one.run("nft", "list", "table", "inet", "mine")
    one.run("nft", "flush ruleset")
    deadline = time.monotonic() + 3
    while table(one) != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def table(node: LabNode) -> list[str]:
    """The rules, whatever the counters say and in whatever order elements come."""
    try:
        listed = node.run("nft", "-s", "list", "table", "inet", "orch")
    except AssertionError:
        return []
    return sorted(line.removesuffix(",") for line in listed.splitlines())


def test_one_change_leaves_the_rest_as_it_is(lab: Lab, one: LabNode) -> None:
    """Of an endpoint: no chain, no rule and no set is made anew, and no counter begins again."""
    lab.task(one, "web-1", 2)
    lab.task(one, "web-2", 3)
    members = [endpoint("10.112.1.2"), endpoint("10.112.1.3")]
    other = service("other", endpoint("10.112.1.2"), number=2, ports=PORTS)
    lab.serve(service("web", *members, ports=PORTS), other)
    lab.serve(service("web", members[0], ports=PORTS))
    lab.serve(service("web", *members, ports=PORTS))
    one.ask(VIRTUAL, 80)
    before = handles(one)
    lab.serve(service("web", members[1], ports=PORTS))
    assert handles(one) == before
    assert one.ask(VIRTUAL, 80).name == "web-2"
    with one.entered():
        assert rules.counters()[VIRTUAL].requests == 2


def handles(node: LabNode) -> list[str]:
    """Every chain, rule and set with its number."""
    return [line for line in node.run("nft", "-a", "list", "table", "inet", "orch").splitlines() if "# handle" in line]


def test_traffic_is_counted(lab: Lab, one: LabNode) -> None:
    """Connections and bytes, of virtual addresses and of published ports."""
    lab.task(one, "web-1", 2)
    client = lab.task(one, "client-1", 9, "client")
    lab.serve(
        service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)),
        service("client", endpoint("10.112.1.9"), number=2),
    )
    names(client, times=3)
    names(lab.outside, one.address, 8080, times=2)
    with one.entered():
        found = rules.counters()
    assert found[VIRTUAL].requests == 3
    assert found[VIRTUAL].bytes > 3 * 200
    assert found["tcp 8080"].requests == 2
    assert found["tcp 8080"].bytes > 2 * 200


def test_a_new_agent_takes_everything_over(lab: Lab, one: LabNode) -> None:
    """Rules hold while there is none; one transaction replaces them; a connection goes on through all of it."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)))
    one.stop()
    assert lab.outside.ask(one.address, 8080).name == "web-1"
    before = table(one)
    one.start()
    one.configure()
    assert table(one) == before
    assert lab.outside.ask(one.address, 8080).name == "web-1"


def test_the_subnet_changes(one: LabNode) -> None:
    """The node's device has the new gateway's address alone, and nothing of the old subnet is left."""
    one.described.subnet = "10.112.7.0/24"
    one.configure()
    assert "10.112.1." not in one.run("ip", "addr") + one.run("ip", "route")
    assert "10.112.7.1/32" in one.run("ip", "addr", "show", "orch0")
