"""Names in a cluster of both families: what each question gets, and whose an address is."""

import ipaddress

import pytest

from agent.core.dns import names, wire
from agent.core.dns.zone import Zone
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb


def endpoint(task_id: str, slot: int, *addresses: str, ready: bool = True) -> dpb.Endpoint:
    address, address6 = (*addresses, "")[:2]
    return dpb.Endpoint(task_id=task_id, slot=slot, node_id="n1", address=address, address6=address6, ready=ready)


def services() -> dict[str, dpb.NetworkService]:
    """One with virtual addresses, one without, one without tasks, and one from before there was IPv6."""
    web = dpb.NetworkService(
        id="s1",
        namespace="default",
        name="web",
        address="10.96.0.7",
        address6="fd00:96::7",
        ports=[pb.Port(name="http", target=80)],
        endpoints=[
            endpoint("web-1-a", 1, "10.1.0.2", "fd00:1::2"),
            endpoint("web-2-b", 2, "10.1.0.3", ready=False),
            endpoint("web-3-c", 3, "10.1.1.4", "fd00:1:0:1::4"),
        ],
    )
    db = dpb.NetworkService(
        id="s2",
        namespace="default",
        name="db",
        ports=[pb.Port(name="sql", target=5432)],
        endpoints=[endpoint("db-1-a", 1, "10.1.0.9", "fd00:1::9"), endpoint("db-2-a", 2, "10.1.1.9")],
    )
    idle = dpb.NetworkService(id="s3", namespace="default", name="idle")
    shop = dpb.NetworkService(id="s4", namespace="shop", name="web", address="10.96.0.8")
    return {service.id: service for service in (web, db, idle, shop)}


def dual(*, addresses: tuple[str, ...] = ("10.1.0.1", "fd00:1::1")) -> Zone:
    """A zone with both families, or of those that it answers by."""
    made = Zone()
    made.configure(ranges=("10.0.0.0/12", "10.96.0.0/16", "fd00:1::/32", "fd00:96::/112"), addresses=addresses)
    made.update(services())
    return made


def looked_up(zone: Zone, name: str, kind: int) -> wire.Answer | None:
    return zone.lookup(names.from_text(name), kind, "default", lambda _: None)


def held(zone: Zone, name: str, kind: int) -> set[str]:
    """The addresses in the answer, which is no error."""
    answer = looked_up(zone, name, kind)
    assert answer is not None
    assert answer.code == wire.NOERROR
    assert bool(answer.authority) == (not answer.answers), "NODATA says for how long"
    return {str(ipaddress.ip_address(record.data)) for record in answer.answers}


@pytest.mark.parametrize(
    ("name", "four", "six"),
    [
        ("web", {"10.96.0.7"}, {"fd00:96::7"}),
        ("tasks.web", {"10.1.0.2", "10.1.1.4"}, {"fd00:1::2", "fd00:1:0:1::4"}),
        ("web-1.web", {"10.1.0.2"}, {"fd00:1::2"}),
        ("web-2.web", {"10.1.0.3"}, set()),
        ("db", {"10.1.0.9", "10.1.1.9"}, {"fd00:1::9"}),
        ("web.shop", {"10.96.0.8"}, set()),
        ("idle", set(), set()),
        ("ns.orch", {"10.1.0.1"}, {"fd00:1::1"}),
    ],
)
def test_each_family_has_its_own_answer(name: str, four: set[str], six: set[str]) -> None:
    """And a name without an address of one is there all the same."""
    assert (held(dual(), name, wire.A), held(dual(), name, wire.AAAA)) == (four, six)


def test_a_family_that_the_cluster_does_not_have_is_not_told() -> None:
    """Whatever a service may have kept from before."""
    assert held(dual(addresses=("fd00:1::1",)), "web", wire.A) == set()
    assert held(dual(addresses=("fd00:1::1",)), "web", wire.AAAA) == {"fd00:96::7"}
    assert held(dual(addresses=("10.1.0.1",)), "web", wire.AAAA) == set()


def test_a_port_is_told_with_addresses_of_both_families() -> None:
    answer = looked_up(dual(), "_http._tcp.web", wire.SRV)
    assert answer is not None
    assert [record.kind for record in answer.additional] == [wire.A, wire.AAAA]
    assert len(answer.answers) == 1
    answer = looked_up(dual(), "_sql._tcp.db", wire.SRV)
    assert answer is not None
    assert (len(answer.answers), len(answer.additional)) == (2, 3)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("fd00:96::7", "web.default.orch"),
        ("fd00:1::2", "web-1.web.default.orch"),
        ("fd00:1::1", "ns.orch"),
        ("fd00:1::77", None),
    ],
)
def test_an_address_of_ipv6_leads_back_to_its_name(address: str, name: str | None) -> None:
    answer = looked_up(dual(), ipaddress.ip_address(address).reverse_pointer, wire.PTR)
    assert answer is not None
    if name is None:
        assert answer.code == wire.NXDOMAIN
    else:
        assert [record.data for record in answer.answers] == [names.from_text(name)]


def test_addresses_of_ipv6_around_ours_are_somebody_elses() -> None:
    """Inside our ranges there is something below every part; what is written otherwise is no name of ours."""
    zone = dual()
    whole = ipaddress.ip_address("fd00:1::2").reverse_pointer
    assert looked_up(zone, ipaddress.ip_address("2001:db8::1").reverse_pointer, wire.PTR) is None
    assert looked_up(zone, "d.f.ip6.arpa", wire.PTR) is None
    inside = looked_up(zone, whole.partition(".")[2], wire.PTR)
    assert inside is not None
    assert (inside.code, inside.answers) == (wire.NOERROR, ())
    assert inside.authority[0].name == names.from_text("1.0.0.0.0.0.d.f.ip6.arpa")
    for strange in ("02." + whole[2:], "g." + whole[2:], "_." + whole[2:], "10." + whole[2:], "ip6.arpa"):
        assert looked_up(zone, strange, wire.PTR) is None
    below = looked_up(zone, f"x.{whole}", wire.PTR)
    assert below is not None
    assert below.code == wire.NXDOMAIN
    answer = looked_up(zone, whole, wire.A)
    assert answer is not None
    assert (answer.code, answer.answers) == (wire.NOERROR, ())
