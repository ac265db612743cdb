"""Services on real nodes: who answers, from which address the question seems to come, and who is refused."""

import socket

import pytest

from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import EVERY_KIND, INGRESS, INGRESS_UDP, LOCAL, OUTSIDE, PORTS, Lab, LabNode, tcp, udp
from tests.support.places import VIRTUAL, names, prohibited, refused

pytestmark = [pytest.mark.root, EVERY_KIND]


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
    lab.servers.add(two, "a process of the node", tcp=(8080,))  # it does not get what was meant for the service
    for place, host in ((lab.outside, two.address), (one, one.address), (client, one.address)):
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
    assert client.pings(VIRTUAL)
    assert one.pings(VIRTUAL)
    assert not client.pings("10.113.0.77")


def test_an_ingress_port_is_on_every_node(lab: Lab, one: LabNode, two: LabNode) -> None:
    """The client's address is seen where the task is on the node that was asked; else it is that node's."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(INGRESS, INGRESS_UDP)))
    assert lab.outside.ask(one.address, 8080).client == OUTSIDE
    assert lab.outside.ask(two.address, 8080).client == two.gateway
    assert lab.outside.ask_udp(one.address, 8080).client == OUTSIDE
    assert lab.outside.ask_udp(two.address, 8080).client == two.gateway
    for node in (one, two):
        for host in (*lab.loopbacks, node.address, node.gateway):
            assert node.ask(host, 8080).name == "web-1", (node.number, host)
            assert node.ask_udp(host, 8080).name == "web-1"
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
    for host in (*lab.loopbacks, two.address):
        refused(two, host, 8080)


def test_a_host_port_is_on_the_tasks_node_alone(lab: Lab, one: LabNode, two: LabNode) -> None:
    """From outside and from the node, for as long as the task is there."""
    lab.serve(service("web", endpoint("10.112.1.2"), ports=PORTS))
    lab.task(one, "web-1", 2, "web", tcp(8080), udp(8080))
    assert lab.outside.ask(one.address, 8080).client == OUTSIDE
    assert lab.outside.ask_udp(one.address, 8080).client == OUTSIDE
    for host in (*lab.loopbacks, one.gateway):
        assert one.ask(host, 8080).name == "web-1"
    refused(lab.outside, two.address, 8080)
    one.detach("web-1")
    refused(lab.outside, one.address, 8080)
    for host in (*lab.loopbacks, one.gateway):
        refused(one, host, 8080)


def test_a_udp_port_is_opened_for_clients_that_were_there_before(lab: Lab, one: LabNode) -> None:
    """Whose datagrams the node itself has refused until then."""
    lab.task(one, "web-1", 2)
    with lab.outside.open(socket.SOCK_DGRAM) as client:
        with pytest.raises(ConnectionRefusedError):
            lab.outside.ask_udp(one.address, 8080, client)
        lab.serve(service("web", endpoint("10.112.1.2"), ports=(INGRESS_UDP,)))
        assert lab.outside.ask_udp(one.address, 8080, client).name == "web-1"


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
