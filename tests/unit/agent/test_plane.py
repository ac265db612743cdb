"""The node's table as values: what a service contributes, and that differences add up to the whole."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import balancing, firewall
from agent.core.network import Attachment, PublishedPort
from agent.core.plane import Plane
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support import twins
from tests.support.fake_leader import endpoint, service
from tests.support.planes import ALONE, BOTH, NETWORK, Kernel, plane

TCP = pb.Port(target=80, protocol=pb.PROTOCOL_TCP)
UDP = pb.Port(target=53, protocol=pb.PROTOCOL_UDP)
INGRESS = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)


def web(*addresses: str, **more: object) -> dpb.NetworkService:
    return service("web", *map(endpoint, addresses), ports=(TCP,), **more)


@given(seed=st.integers(0, 2**32), network=st.sampled_from([NETWORK, BOTH, ALONE]))
def test_differences_add_up_to_the_whole(seed: int, network: dpb.NodeNetwork) -> None:
    """Whatever comes and goes, in whatever order, also addresses that move from one service to another; of whatever
    families.
    """
    chance, made, kernel = random.Random(seed), plane(network=network), Kernel()
    services: dict[str, dpb.NetworkService] = {}
    for _ in range(chance.randrange(1, 30)):
        for _ in range(chance.randrange(1, 4)):
            services = changed(chance, made, services)
        kernel.take(made.transaction())
    made.lose()
    whole = Kernel()
    whole.take(made.transaction())
    assert kernel.elements == whole.elements
    assert kernel.sets == whole.sets
    assert whole.chains.items() <= kernel.chains.items(), "choosers of a number that nobody has any more may be left"


def changed(
    chance: random.Random, made: Plane, services: dict[str, dpb.NetworkService]
) -> dict[str, dpb.NetworkService]:
    name, task_id = chance.choice("abc"), chance.choice("tuv")
    match chance.randrange(4):
        case 0:
            made.attach(attachment(chance, task_id))
        case 1:
            made.detach(task_id)
        case 2:
            services = {key: value for key, value in services.items() if value.name != name}
        case 3:
            now = some_service(chance, name)
            services = {**services, now.id: now}
    made.serve(services)
    return services


def attachment(chance: random.Random, task_id: str) -> Attachment:
    number = "tuv".index(task_id)
    ports = (
        (PublishedPort(protocol=pb.PROTOCOL_UDP, published=100 + number, target=5),) if chance.random() < 0.5 else ()
    )
    name = chance.choice(("default/a", "default/b", "default/nobody"))
    address = f"10.112.1.{2 + number}"
    return Attachment(task_id=task_id, address=address, address6=six(chance, address), ports=ports, service=name)


def six(chance: random.Random, address: str) -> str:
    """Tasks that were there before IPv6 have no address of it."""
    return twins.twin(address) if chance.random() < 0.8 else ""


def some_service(chance: random.Random, name: str) -> dpb.NetworkService:
    members = chance.sample(range(2, 9), chance.randrange(5))
    published = {"a": 8080, "b": 8081, "c": 8082}[name]
    ingress = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=published, mode=pb.PUBLISH_MODE_INGRESS)
    return service(
        name,
        *(endpoint(f"10.112.{chance.randrange(1, 3)}.{number}", ready=chance.random() < 0.7) for number in members),
        ports=[port for port in (TCP, UDP, ingress) if chance.random() < 0.6],
        number="abc".index(name) + 1,
        networks=sorted(chance.sample(("n/x", "n/y", "n/z"), chance.randrange(1, 3))),
        allow=[dpb.AllowedSource(service_id=f"id-of-{chance.choice('abc')}", ports=[TCP])],
        session_affinity=chance.choice((pb.SESSION_AFFINITY_NONE, pb.SESSION_AFFINITY_CLIENT_IP)),
        external_traffic_policy=chance.choice((pb.EXTERNAL_TRAFFIC_POLICY_CLUSTER, pb.EXTERNAL_TRAFFIC_POLICY_LOCAL)),
        internal=chance.random() < 0.3,
    )


def test_an_endpoint_that_goes_is_a_few_elements() -> None:
    """The last one takes its place; nothing else is said."""
    other = service("other", endpoint("10.112.1.9"), ports=(UDP,), number=2)
    made = plane(web("10.112.1.2", "10.112.1.3", "10.112.1.4"), other)
    made.transaction()
    made.serve({"id-of-web": web("10.112.1.3", "10.112.1.4"), "id-of-other": other})
    deleted, added = "delete element inet orch", "add element inet orch"
    assert sorted(made.transaction().text.splitlines()) == sorted(
        [
            f"{deleted} endpoints {{ 10.113.0.1 . 2, 10.113.0.1 . 0 }}",
            f"{deleted} services {{ 10.113.0.1 . tcp . 80 }}",
            f"{deleted} known {{ 10.112.1.2 }}",
            "add chain inet orch endpoints-any-2",
            "add rule inet orch endpoints-any-2 dnat ip to ip daddr . numgen random mod 2 map @endpoints",
            f"{added} endpoints {{ 10.113.0.1 . 0 : 10.112.1.4 }}",
            f"{added} services {{ 10.113.0.1 . tcp . 80 : goto endpoints-any-2 }}",
        ]
    )


def test_a_node_that_joins_is_two_elements() -> None:
    """Its address among its tasks is let in, and so is its tunnel; nothing is made anew. Another subnet is another
    table.
    """
    made = plane(web("10.112.1.2"))
    made.transaction()
    joined = dpb.NodeNetwork()
    joined.CopyFrom(NETWORK)
    joined.peers.add(node_id="x", address="192.0.2.2", subnet="10.112.2.0/24")
    made.configure(joined)
    assert made.transaction().text.splitlines() == [
        "add element inet orch gateways { 10.112.2.1 }",
        "add element inet orch nodes { 192.0.2.2 }",
    ]
    moved = dpb.NodeNetwork()
    moved.CopyFrom(NETWORK)
    moved.subnet = "10.112.9.0/24"
    made.configure(moved)
    assert made.transaction().whole


def test_what_did_not_change_is_not_said() -> None:
    """Equal messages are as good as the same ones."""
    made = plane(web("10.112.1.2"))
    made.transaction()
    made.serve({"id-of-web": web("10.112.1.2")})
    assert made.transaction().text == ""


def test_nothing_is_said_before_there_is_a_network() -> None:
    """Tasks of an earlier agent may go before the leader has told of one."""
    made = Plane()
    made.attach(Attachment(task_id="t", address="10.112.1.2"))
    made.detach("t")
    assert made.transaction().text == ""


def test_a_lost_transaction_is_followed_by_a_whole_one() -> None:
    """Whatever the kernel has by now."""
    made = plane(web("10.112.1.2"))
    first = made.transaction()
    made.lose()
    again = made.transaction()
    assert again.whole
    assert again.text == first.text


@pytest.mark.parametrize(
    ("before", "ready", "arranged"),
    [
        ("", "abc", "abc"),
        ("abcd", "acd", "adc"),
        ("abcd", "abcd", "abcd"),
        ("abcd", "d", "d"),
        ("abcd", "abcde", "abcde"),
        ("abcd", "acde", "aecd"),
        ("abcd", "xy", "xy"),
        ("abcd", "", ""),
        ("ab", "bcde", "cbde"),
    ],
)
def test_as_few_as_possible_change_places(before: str, ready: str, arranged: str) -> None:
    """The newest fill the gaps, then the last ones do."""
    assert "".join(balancing.arrange(before, ready, by_client=False)) == arranged


@given(before=st.sets(st.integers(0, 20)), ready=st.sets(st.integers(0, 20)))
def test_an_arrangement_has_everybody_once(before: set[int], ready: set[int]) -> None:
    """And the places of those that stay change only as far as there are gaps."""
    texts = [str(number) for number in before]
    found = balancing.arrange(texts, map(str, ready), by_client=False)
    assert sorted(found) == sorted(map(str, ready))
    moved = [place for place, text in enumerate(found) if place < len(texts) and texts[place] != text]
    assert len(moved) <= len(before - ready)


def test_clients_are_hashed_the_same_everywhere() -> None:
    """Nodes that have seen different histories agree."""
    assert (
        balancing.arrange("ca", "bac", by_client=True)
        == balancing.arrange("", "cab", by_client=True)
        == ("a", "b", "c")
    )


def test_the_last_tasks_of_a_service_that_has_gone_are_held_by_its_rules() -> None:
    """While they stop. With the last of them goes everything; and what nobody knows of reaches nothing outside."""
    kernel, member = Kernel(), Attachment(task_id="t", address="10.112.1.2", service="default/web")
    made = plane(web("10.112.1.2", internal=True), attached=(member,))
    kernel.take(made.transaction())
    doors = dict(kernel.chains)[balancing.door_chain("default/web")]
    made.serve({})
    kernel.take(made.transaction())
    assert ("internal", "10.112.1.2") in kernel.elements
    assert kernel.chains[balancing.door_chain("default/web")] == doors
    assert not [key for name, key in kernel.elements if name == "services"]
    made.detach("t")
    kernel.take(made.transaction())
    assert kernel.elements == {}
    made.attach(Attachment(task_id="u", address="10.112.1.3", service="default/unknown"))
    kernel.take(made.transaction())
    assert ("internal", "10.112.1.3") in kernel.elements


def test_names_of_networks_never_reach_nft() -> None:
    """They may be longer than it takes, and are what people have written."""
    name = f"{'n' * 63}/{'m' * 63}"
    member = Attachment(task_id="t", address="10.112.1.2", service="default/web")
    made = plane(web("10.112.1.2", networks=[name]), attached=(member,))
    text = made.transaction().text
    assert "nnn" not in text
    assert all(len(word) < 128 for word in re.findall(r"@(\S+)", text))


def test_what_is_no_address_is_left_out() -> None:
    """A node says which addresses its tasks have; it must not be able to say anything else to the others' nft."""
    bad = "10.112.1.2 }; flush ruleset; add element inet orch known { 10.112.1.3"
    text = plane(service("web", endpoint(bad), endpoint("10.112.1.4"), ports=(TCP,))).transaction().text
    assert "flush" not in text
    assert "10.113.0.1 . 0 : 10.112.1.4" in text


@pytest.mark.parametrize(
    ("own", "target"),
    [
        (pb.Port(target=79, published=8080), "10.112.1.1 . 79"),
        (pb.Port(target=79, name="http"), "10.112.1.1 . 79"),
        (pb.Port(target=80), "10.112.1.1 . 80"),
        (pb.Port(target=79, published=8081), None),
        (pb.Port(target=80, published=8080, protocol=pb.PROTOCOL_UDP), None),
    ],
    ids=["its number", "its name", "its target", "it does not know it", "another protocol"],
)
def test_a_task_of_an_older_revision_is_led_to_its_own_port(own: pb.Port, target: str | None) -> None:
    """What comes to a published port reaches the program that listens there, whichever revision it is."""
    older, newer = endpoint("10.112.1.1"), endpoint("10.112.1.2")
    older.ports.append(own)
    port = pb.Port(target=80, published=8080, mode=pb.PUBLISH_MODE_INGRESS, name="http")
    kernel = Kernel()
    kernel.take(plane(service("web", older, newer, ports=(port,))).transaction())
    led = [value for (name, _), value in kernel.elements.items() if name == "outside-tcp"]
    assert sorted(led) == sorted(filter(None, [target, "10.112.1.2 . 80"]))


def test_udp_targets_that_go_are_told() -> None:
    """Those of TCP are not: their connections go on."""
    both = service("web", endpoint("10.112.1.2"), endpoint("10.112.1.3"), ports=(TCP, UDP))
    made = plane(both, service("tcp", endpoint("10.112.1.4"), ports=(TCP,), number=2))
    made.transaction()
    made.serve({"id-of-web": service("web", endpoint("10.112.1.2"), endpoint("10.112.1.3", ready=False), ports=(UDP,))})
    assert made.transaction().udp_gone == {"10.112.1.3"}


def test_the_rule_of_a_chooser() -> None:
    """The name says it all."""
    assert firewall.balancer("outside-udp", 1, by_client=True) == "outside-udp-any-1", "nothing to choose"
    assert firewall.balancer_rule(firewall.balancer("outside-tcp", 3, by_client=True)) == (
        "dnat ip to tcp dport . jhash ip saddr mod 3 seed 0x6f726368 map @outside-tcp"
    )


def test_only_what_was_touched_is_looked_at() -> None:
    """And that is what whoever looks at everything finds, too."""
    one, two = web("10.112.1.2"), service("api", endpoint("10.112.1.3"), number=2, ports=(TCP,))
    changed = web("10.112.1.4")
    told, whole = plane(one, two), plane(one, two)
    for made in (told, whole):
        made.transaction()
    told.serve({changed.id: changed}, {changed.id, two.id})
    whole.serve({changed.id: changed})
    text = told.transaction().text
    assert text == whole.transaction().text
    assert "10.112.1.4" in text
    told.serve({one.id: one}, ())
    assert told.transaction().text == "", "nobody has said that it is another one"
