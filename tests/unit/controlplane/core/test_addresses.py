"""No address is held twice, and a freed one rests until all the others were given."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import addresses
from protos.families import V4, V6
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build

RANGE = "10.201.0.0/28"
SIZE = 14
"""Sixteen without the first and the last."""


def record(address: str = "", subnet: str = "") -> pb.Cluster:
    return pb.Cluster(status=pb.ClusterStatus(last_service_address=address, last_subnet=subnet))


def take(taken: set[str], last: pb.Cluster | None) -> str:
    return addresses.service_addresses(RANGE, taken, last).take()


def test_the_first_address_is_not_the_ranges_own() -> None:
    assert take(set(), None) == "10.201.0.1"


def test_the_next_comes_after_the_one_that_was_given_last() -> None:
    """Although lower ones are free: one of them may have been freed a moment ago."""
    assert take({"10.201.0.3"}, record("10.201.0.5")) == "10.201.0.6"


def test_after_the_end_comes_the_beginning() -> None:
    assert take({"10.201.0.1"}, record("10.201.0.14")) == "10.201.0.2"


def test_a_cluster_without_a_record_goes_on_after_the_highest() -> None:
    assert take({"10.201.0.2", "10.201.0.7"}, None) == "10.201.0.8"


def test_what_is_of_another_range_is_passed_over() -> None:
    """The range was changed: services keep what they have, and new ones get addresses of the new range."""
    assert take({"10.9.0.1", ""}, record("10.9.0.1")) == "10.201.0.1"


def test_a_full_range_gives_nothing() -> None:
    full = {f"10.201.0.{number}" for number in range(1, 15)}
    assert take(full, record("10.201.0.3")) == ""
    assert take(full - {"10.201.0.3"}, record("10.201.0.3")) == "10.201.0.3"


def test_subnets_fill_the_whole_range() -> None:
    pool = addresses.subnets("10.112.0.0/22", 24, {"10.112.1.0/24"}, record(subnet="10.112.2.0/24"))
    assert [pool.take() for _ in range(4)] == ["10.112.3.0/24", "10.112.0.0/24", "10.112.2.0/24", ""]


def test_what_was_given_is_remembered_and_nothing_else_is_written() -> None:
    assert addresses.remember(None, now_ms=1) == []
    (made,) = addresses.remember(None, now_ms=1, subnets=["10.112.0.0/24"])
    assert isinstance(made.value, pb.Cluster)
    assert made.value.meta.name == "cluster"
    (changed,) = addresses.remember(made.value, now_ms=2, service_addresses=["10.201.0.1"])
    assert isinstance(changed.value, pb.Cluster)
    assert changed.value.status == pb.ClusterStatus(last_service_address="10.201.0.1", last_subnet="10.112.0.0/24")


def test_a_service_with_ports_gets_an_address_unless_its_name_leads_to_its_tasks() -> None:
    service = build.service()
    assert not addresses.wanted(service), "it has no ports"
    service.spec.template.container.ports.add(target=80)
    assert addresses.wanted(service)
    service.spec.endpoint_mode = pb.ENDPOINT_MODE_DNS
    assert not addresses.wanted(service)
    service.spec.endpoint_mode = pb.ENDPOINT_MODE_VIP
    service.status.address = "10.201.0.1"
    assert not addresses.wanted(service), "it has one"


@given(st.lists(st.integers(0, SIZE), max_size=120))
def test_no_address_is_held_twice_and_a_freed_one_is_the_last_to_return(wishes: list[int]) -> None:
    """0 makes a service; n ends the n-th, and the leader after that one begins with what is stored."""
    held: list[str] = []
    last = record()
    given_since: dict[str, set[str]] = {}
    for wish in wishes:
        if wish and held:
            freed = held.pop(wish % len(held))
            given_since[freed] = set()
            continue
        free = SIZE - len(held)
        address = take(set(held), last)
        assert bool(address) == (free > 0)
        if not address:
            continue
        assert address not in held
        assert ipaddress.ip_address(address) in ipaddress.ip_network(RANGE)
        if address in given_since:
            others = {f"10.201.0.{number}" for number in range(1, 15)} - {address}
            # Of several that are free, which one comes first is a matter of where they lie.
            rested = given_since.pop(address) | set(held) | set(given_since)
            assert others <= rested, "given again before the others were"
        for passed in given_since.values():
            passed.add(address)
        held.append(address)
        last = record(address)


SIX = "fd00:201::/112"


def test_addresses_of_ipv6_go_on_as_those_of_ipv4_do() -> None:
    """From the record of their own family; what is of the other counts for nothing."""
    cluster = pb.Cluster(
        status=pb.ClusterStatus(last_service_address="10.201.0.9", last_service_address6="fd00:201::3")
    )
    assert addresses.service_addresses(SIX, {"fd00:201::4", "10.201.0.5", ""}, cluster).take() == "fd00:201::5"
    assert addresses.service_addresses(SIX, (), None).take() == "fd00:201::1"


def test_a_large_range_is_no_more_work_than_a_small_one() -> None:
    """A /48 has 65,536 subnets of 64 bits, and a /8 more than anybody can count through."""
    cluster = pb.Cluster(status=pb.ClusterStatus(last_subnet6="fd00:0:0:6::/64"))
    assert addresses.subnets("fd00::/8", 64, {"fd00:0:0:7::/64"}, cluster).take() == "fd00:0:0:8::/64"
    assert addresses.service_addresses("fd00::/8", {"fd00::1"}, None).take() == "fd00::2"


def test_each_family_is_remembered_for_itself() -> None:
    (made,) = addresses.remember(None, now_ms=1, subnets=["10.112.0.0/24", "fd00:112::/64"], service_addresses=[""])
    assert isinstance(made.value, pb.Cluster)
    assert made.value.status == pb.ClusterStatus(last_subnet="10.112.0.0/24", last_subnet6="fd00:112::/64")


def test_an_address_of_one_family_does_not_stand_for_the_other() -> None:
    """A service that had one before the cluster had IPv6 gets the second one."""
    service = pb.Service(status=pb.ServiceStatus(address="10.201.0.1"))
    service.spec.template.container.ports.add(target=80)
    assert not addresses.wanted(service, V4)
    assert addresses.wanted(service, V6)
