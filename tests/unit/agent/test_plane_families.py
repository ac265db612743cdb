"""The node's table in clusters of both families, and of IPv6 alone."""

import re
from pathlib import Path

import pytest

from agent.core import balancing, fixedrules
from agent.core.network import Attachment
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support import golden
from tests.support.fake_leader import endpoint, service
from tests.support.planes import ALONE, BOTH, NETWORK, Kernel, plane

TCP = pb.Port(target=80, protocol=pb.PROTOCOL_TCP)
INGRESS = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
TRUSTED = ("192.0.2.254/32", "2001:db8::fe/128")


def test_ipv6_is_twins_of_what_ipv4_has() -> None:
    """In the same chains; a service without a ready task of one family refuses there alone."""
    port = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
    both, old = endpoint("10.112.1.2"), endpoint("10.112.1.3")
    both.address6 = "fd00:112:0:1::2"
    made = service("web", both, old, ports=(port,))
    made.address6 = "fd00:113::1"
    member = Attachment(task_id="t", address="10.112.1.2", address6="fd00:112:0:1::2", service="default/web")
    kernel = Kernel()
    kernel.take(plane(made, attached=(member,), network=BOTH).transaction())
    door = balancing.door_chain("default/web")
    assert {key: value for key, value in kernel.elements.items() if key[0].endswith("6")} == {
        ("addresses6", "fd00:113::1"): "",
        ("requests6", "fd00:113::1"): "",
        ("refusals6", "fd00:113::1"): "",
        ("traffic6", "fd00:113::1"): "",
        ("endpoints6", "fd00:113::1 . 0"): "fd00:112:0:1::2",
        ("services6", "fd00:113::1 . tcp . 80"): "goto endpoints6-any-1",
        ("published6", "tcp . 8080"): "goto outside-tcp6-any-1",
        ("outside-tcp6", "8080 . 0"): "fd00:112:0:1::2 . 80",
        ("hairpin6", "fd00:112:0:1::2 . fd00:112:0:1::2"): "",
        ("known6", "fd00:112:0:1::2"): "",
        ("tasks6", "fd00:112:0:1::2"): f"goto {door}",
        ("barred6", "fd00:112:0:1::2"): "",
    }
    assert kernel.elements["services", "10.113.0.1 . tcp . 80"] == "goto endpoints-any-2"
    net = balancing.members_set("default/default", V4).partition("-")[2]
    assert kernel.chains[door] == [f"ip saddr @net-{net} accept", f"ip6 saddr @net6-{net} accept", "goto stranger"]
    assert kernel.chains["outside-tcp6-any-1"] == ["dnat ip6 to tcp dport . numgen random mod 1 map @outside-tcp6"]


def test_without_a_task_of_a_family_a_port_is_closed_for_it() -> None:
    port = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
    kernel = Kernel()
    kernel.take(plane(service("web", endpoint("10.112.1.2"), ports=(port,)), network=BOTH).transaction())
    assert ("closed6", "tcp . 8080") in kernel.elements
    assert ("closed", "tcp . 8080") not in kernel.elements


def test_what_is_no_address_of_ipv6_is_left_out_too() -> None:
    bad = endpoint("10.112.1.2")
    bad.address6 = "fd00::1 }; flush ruleset"
    text = plane(service("web", bad, ports=(TCP,)), network=BOTH).transaction().text
    assert "flush" not in text


def test_a_cluster_of_ipv4_alone_has_nothing_of_ipv6() -> None:
    """Whatever its services and tasks would have; but that tasks must not speak it."""
    made = service("web", endpoint("10.112.1.2"), ports=(INGRESS,))
    made.address6 = made.endpoints[0].address6 = "fd00::9"
    member = Attachment(task_id="t", address="10.112.1.2", address6="fd00::9", service="default/web")
    text = plane(made, attached=(member,)).transaction().text
    left = [line for line in text.splitlines() if re.search(r"ip6|ipv6|icmpv6|icmpx|fd00|6 [{]", line)]
    assert [line.strip() for line in left] == [
        'iifname "orch-*" meta nfproto ipv6 drop',
        'iifname "orch-*" meta nfproto ipv6 drop',
        'oifname "orch-*" meta nfproto ipv6 drop',
    ]


def test_a_cluster_of_ipv6_alone_has_nothing_of_ipv4() -> None:
    made = service("web", endpoint("10.112.1.2"), ports=(INGRESS,))
    made.endpoints[0].address6 = "fd00:112:0:1::2"
    text = plane(made, network=ALONE).transaction().text
    fixed = fixedrules.table(ALONE, outer=V6)
    assert not re.search(r"\bip [sd]addr|ipv4_addr|\bicmp type", fixed)
    assert "10.112." not in text
    assert fixed.count("meta nfproto ipv4 drop") == 3


@pytest.mark.parametrize(("name", "network", "outer"), [("ipv4", NETWORK, V4), ("dual", BOTH, V4), ("ipv6", ALONE, V6)])
def test_the_fixed_rules_as_they_are(name: str, network: dpb.NodeNetwork, outer: Family) -> None:
    """Written down in full, so that a change of them is read as one."""
    golden.check(Path(__file__).parent / f"rules_{name}.txt", fixedrules.table(network, TRUSTED, outer=outer))
