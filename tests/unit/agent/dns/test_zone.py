"""The cluster's names, as a task sees them: a packet in, a packet out, read by an independent library."""

import random
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.dns import names, respond, wire
from agent.core.dns.respond import Asker, Forward
from agent.core.dns.zone import Zone
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

TCP, UDP = pb.PROTOCOL_TCP, pb.PROTOCOL_UDP


def endpoint(task_id: str, slot: int, address: str, *, ready: bool = True) -> dpb.Endpoint:
    return dpb.Endpoint(task_id=task_id, slot=slot, node_id="n1", address=address, ready=ready)


def services(*extra: dpb.NetworkService) -> dict[str, dpb.NetworkService]:
    """A service with a virtual address, one without, one without tasks, and one of another namespace."""
    web = dpb.NetworkService(
        id="s1",
        namespace="default",
        name="web",
        address="10.96.0.7",
        ports=[
            pb.Port(name="http", target=80, protocol=TCP),
            pb.Port(target=81),
            pb.Port(name="dns", target=53, protocol=UDP),
        ],
        endpoints=[
            endpoint("web-1-a", 1, "10.1.0.2"),
            endpoint("web-2-b", 2, "10.1.0.3", ready=False),
            endpoint("web-3-c", 3, "10.1.1.4"),
            endpoint("web-3-d", 3, "10.1.1.5", ready=False),
            endpoint("web-4-e", 4, ""),
        ],
    )
    db = dpb.NetworkService(
        id="s2",
        namespace="default",
        name="db",
        ports=[pb.Port(name="sql", target=5432, protocol=TCP)],
        endpoints=[endpoint("db-1-a", 1, "10.1.0.9"), endpoint("db-2-a", 2, "10.1.1.9")],
    )
    idle = dpb.NetworkService(id="s3", namespace="default", name="idle")
    shop = dpb.NetworkService(id="s4", namespace="shop", name="web", address="10.96.0.8")
    return {service.id: service for service in (web, db, idle, shop, *extra)}


@pytest.fixture
def zone() -> Zone:
    made = Zone()
    made.configure(ranges=("10.0.0.0/12", "10.96.0.0/16"), addresses=("10.1.0.1",))
    made.update(services())
    return made


def ask(
    zone: Zone, name: str, kind: str = "A", *, namespace: str | None = "default", served: bool = True
) -> dns.message.Message | None:
    """The answer; None when the question goes to the node's own servers."""
    query = dns.message.make_query(name, kind)
    shuffle: Callable[[list[object]], None] = random.Random(1).shuffle
    answer = respond.respond(query.to_wire(), zone, Asker(served, namespace), shuffle, udp=True)
    if isinstance(answer, Forward):
        return None
    assert answer is not None
    read = dns.message.from_wire(answer)
    assert query.is_response(read)
    assert all(entry.ttl <= 5 for section in read.sections[1:] for entry in section)
    return read


def found(answer: dns.message.Message | None) -> set[str]:
    """What it says, whatever the order."""
    assert answer is not None, "the question was passed on"
    assert answer.rcode() == dns.rcode.NOERROR, answer
    assert answer.flags & dns.flags.AA
    return {record.to_text() for entry in answer.answer for record in entry}


def denied(answer: dns.message.Message | None, code: dns.rcode.Rcode, zone: str = "orch.") -> None:
    """Nothing is there, for as long as the SOA record says."""
    assert answer is not None, "the question was passed on"
    assert (answer.rcode(), answer.answer) == (code, [])
    assert [(entry.name.to_text(), entry.rdtype) for entry in answer.authority] == [(zone, dns.rdatatype.SOA)]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web.default.orch", {"10.96.0.7"}),
        ("WEB.Default.ORCH", {"10.96.0.7"}),
        ("web.default", {"10.96.0.7"}),
        ("web", {"10.96.0.7"}),
        ("web.shop.orch", {"10.96.0.8"}),
        ("web.shop", {"10.96.0.8"}),
        ("tasks.web.default.orch", {"10.1.0.2", "10.1.1.4"}),
        ("tasks.web", {"10.1.0.2", "10.1.1.4"}),
        ("tasks.web.default", {"10.1.0.2", "10.1.1.4"}),
        ("web-1.web.default.orch", {"10.1.0.2"}),
        ("web-1.web", {"10.1.0.2"}),
        ("web-3.web", {"10.1.1.4"}),  # another one comes into its slot
        ("web-2.web", {"10.1.0.3"}),  # its friends find it before it is ready
        ("web-3-d.web.default.orch", {"10.1.1.5"}),
        ("db", {"10.1.0.9", "10.1.1.9"}),
        ("tasks.db", {"10.1.0.9", "10.1.1.9"}),
        ("ns.orch", {"10.1.0.1"}),
    ],
)
def test_addresses(zone: Zone, name: str, addresses: set[str]) -> None:
    """Whole names, names of the namespace, and whatever of them some resolver asks for as it stands."""
    assert found(ask(zone, name)) == addresses


@pytest.mark.parametrize(
    "name", ["nosuch.default.orch", "web.nosuch.orch", "web-9.web.default.orch", "web-4.web.default.orch", "orch.orch",
             "web-03.web.default.orch", "a.b.web.default.orch", "x.tasks.web.default.orch", "_x._tcp.web.default.orch",
             "_http._udp.web.default.orch", "_http._tcp.idle.default.orch", "nosuch.orch", "web.default.orch.orch"],
)  # fmt: skip
def test_names_that_are_not_there(zone: Zone, name: str) -> None:
    """Nobody else is asked for what ends in `orch`."""
    denied(ask(zone, name), dns.rcode.NXDOMAIN)
    denied(ask(zone, name, "AAAA"), dns.rcode.NXDOMAIN)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web.default.orch", "AAAA"),
        ("web", "AAAA"),
        ("tasks.web", "TXT"),
        ("tasks.idle", "A"),
        ("idle", "A"),
        ("idle.default.orch", "HTTPS"),
        ("default.orch", "A"),
        ("orch", "A"),
        ("_tcp.web.default.orch", "SRV"),
        ("_udp.web.default.orch", "A"),
        ("_http._tcp.web.default.orch", "A"),
        ("web.default.orch", "SRV"),
    ],
)
def test_names_without_what_is_asked(zone: Zone, name: str, kind: str) -> None:
    """The name is there: a resolver must not think otherwise."""
    denied(ask(zone, name, kind), dns.rcode.NOERROR)


@pytest.mark.parametrize(
    "name", ["nosuch", "example.com", "x.web", "web.example.com", "1.2.0.192.in-addr.arpa", "orch.com", "."]
)
def test_names_of_others(zone: Zone, name: str) -> None:
    """They go to the node's own servers."""
    assert ask(zone, name) is None


def test_each_namespace_has_its_own_short_names(zone: Zone) -> None:
    """And whoever is in none, as the node itself, has whole ones only."""
    assert found(ask(zone, "web", namespace="shop")) == {"10.96.0.8"}
    assert ask(zone, "db", namespace="shop") is None
    assert found(ask(zone, "db.default", namespace="shop")) == {"10.1.0.9", "10.1.1.9"}
    assert ask(zone, "web", namespace=None) is None
    assert found(ask(zone, "web.shop", namespace=None)) == {"10.96.0.8"}


def test_ports_of_a_service(zone: Zone) -> None:
    """At its virtual address; without one, at each ready task, whose addresses come along."""
    assert found(ask(zone, "_http._tcp.web.default.orch", "SRV")) == {"0 0 80 web.default.orch."}
    assert found(ask(zone, "_dns._udp.web", "SRV")) == {"0 0 53 web.default.orch."}
    answer = ask(zone, "_sql._tcp.db.default.orch", "SRV")
    assert found(answer) == {"0 1 5432 db-1.db.default.orch.", "0 1 5432 db-2.db.default.orch."}
    assert answer is not None
    assert {entry.to_text() for entry in answer.additional} == {
        "db-1.db.default.orch. 1 IN A 10.1.0.9",
        "db-2.db.default.orch. 1 IN A 10.1.1.9",
    }


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.96.0.7", "web.default.orch."),
        ("10.96.0.8", "web.shop.orch."),
        ("10.1.1.9", "db-2.db.default.orch."),
        ("10.1.0.3", "web-2.web.default.orch."),
        ("10.1.0.1", "ns.orch."),
    ],
)
def test_addresses_have_names(zone: Zone, address: str, name: str) -> None:
    """Virtual addresses and those of tasks."""
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert found(ask(zone, reverse, "PTR")) == {name}
    answer = ask(zone, reverse, "TXT")
    assert answer is not None
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize(
    ("name", "zone_name"),
    [
        ("200.0.96.10.in-addr.arpa", "96.10.in-addr.arpa."),
        ("9.9.1.10.in-addr.arpa", "1.10.in-addr.arpa."),
        ("x.7.0.96.10.in-addr.arpa", "96.10.in-addr.arpa."),
    ],
)
def test_addresses_that_are_nobodys(zone: Zone, name: str, zone_name: str) -> None:
    """Those of the cluster are nobody else's affair; the SOA record stands where a whole number of the range ends."""
    denied(ask(zone, name, "PTR"), dns.rcode.NXDOMAIN, zone_name)


def test_parts_of_addresses(zone: Zone) -> None:
    """Inside our ranges there is something below them; around them they are somebody else's."""
    denied(ask(zone, "1.10.in-addr.arpa", "PTR"), dns.rcode.NOERROR, "1.10.in-addr.arpa.")
    assert ask(zone, "10.in-addr.arpa", "PTR") is None
    assert ask(zone, "01.0.1.10.in-addr.arpa", "PTR") is None, "no address is written like this"


def test_the_zone_itself(zone: Zone) -> None:
    """Its SOA and NS records; the serial number rises with every change."""
    (before,) = found(ask(zone, "orch", "SOA"))
    assert before == "ns.orch. hostmaster.orch. 2 60 10 3600 1"
    assert found(ask(zone, "orch", "NS")) == {"ns.orch."}
    zone.update({})
    assert found(ask(zone, "orch", "SOA")) == {before.replace(" 2 ", " 3 ")}


def test_asking_for_anything_gets_little(zone: Zone) -> None:
    """RFC 8482."""
    assert found(ask(zone, "tasks.web", "ANY")) == {'"RFC8482" ""'}
    denied(ask(zone, "nosuch.orch", "ANY"), dns.rcode.NXDOMAIN)


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "TKEY"])
def test_nobody_copies_the_zone(zone: Zone, kind: str) -> None:
    """It is not a secret, but not ours to give away whole."""
    query = dns.message.make_query("orch", kind)
    answer = respond.respond(query.to_wire(), zone, Asker(served=True, namespace=None), random.shuffle, udp=False)
    assert isinstance(answer, bytes)
    assert dns.message.from_wire(answer).rcode() == dns.rcode.REFUSED


def test_strangers_are_refused(zone: Zone) -> None:
    """Whatever they ask."""
    for name in ("web.default.orch", "example.com"):
        answer = ask(zone, name, namespace=None, served=False)
        assert answer is not None
        assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])


def test_whoever_reaches_nothing_outside_learns_of_nothing_outside(zone: Zone) -> None:
    """A question is a way out, too; the cluster's names are there as for everybody."""
    inside = Asker(served=True, namespace="default", outside=False)
    codes = []
    for name in ("secret.example.com", "web", "1.2.0.192.in-addr.arpa"):
        query = dns.message.make_query(name, "A")
        answer = respond.respond(query.to_wire(), zone, inside, random.shuffle, udp=True)
        assert isinstance(answer, bytes)
        codes.append(dns.message.from_wire(answer).rcode())
    assert codes == [dns.rcode.NXDOMAIN, dns.rcode.NOERROR, dns.rcode.NXDOMAIN]
    closed = dpb.NetworkService(id="s8", namespace="default", name="vault", internal=True)
    zone.update(services(closed))
    assert zone.is_internal("default", "vault")
    assert not zone.is_internal("default", "web")
    assert not zone.is_internal("shop", "vault")


def test_a_newer_version_of_edns_is_told_ours(zone: Zone) -> None:
    """RFC 6891, 6.1.3."""
    query = dns.message.make_query("web", "A", use_edns=1)
    answer = respond.respond(query.to_wire(), zone, Asker(served=True, namespace="default"), random.shuffle, udp=True)
    assert isinstance(answer, bytes)
    assert (dns.message.from_wire(answer).rcode(), dns.message.from_wire(answer).edns) == (dns.rcode.BADVERS, 0)


def test_the_order_is_drawn(zone: Zone) -> None:
    """By whoever asks for it, so that every task is somebody's first."""
    firsts = set()
    for backwards in (False, True):
        query = dns.message.make_query("db", "A").to_wire()
        shuffle = list.reverse if backwards else list.sort
        answer = respond.respond(query, zone, Asker(served=True, namespace="default"), shuffle, udp=True)
        assert isinstance(answer, bytes)
        firsts.add(next(iter(dns.message.from_wire(answer).answer[0])).to_text())
    assert firsts == {"10.1.0.9", "10.1.1.9"}


def test_only_what_changed_is_taken_over(zone: Zone) -> None:
    """The same objects are the same services."""
    first = services()
    assert zone.update(first) == 4
    assert zone.update(dict(first)) == 0
    changed = dpb.NetworkService()
    changed.CopyFrom(first["s2"])
    del changed.endpoints[0]
    assert zone.update({**first, "s2": changed}) == 1
    assert found(ask(zone, "db")) == {"10.1.1.9"}
    denied(ask(zone, "9.0.1.10.in-addr.arpa", "PTR"), dns.rcode.NXDOMAIN, "1.10.in-addr.arpa.")


def test_a_service_that_is_made_anew(zone: Zone) -> None:
    """Under its old name with another id, whichever of the two is told first."""
    new = dpb.NetworkService(id="s9", namespace="default", name="web", address="10.96.0.9")
    zone.update(services(new))
    assert found(ask(zone, "web")) == {"10.96.0.9"}
    left = services(new)
    del left["s1"]
    zone.update(left)
    assert found(ask(zone, "web")) == {"10.96.0.9"}
    assert found(ask(zone, "9.0.96.10.in-addr.arpa", "PTR")) == {"web.default.orch."}
    zone.update({})
    assert ask(zone, "web") is None
    denied(ask(zone, "default.orch"), dns.rcode.NXDOMAIN)


@given(
    labels=st.lists(
        st.one_of(
            st.sampled_from([b"web", b"default", b"orch", b"tasks", b"_http", b"_tcp", b"10", b"in-addr", b"arpa"]),
            st.binary(min_size=1, max_size=20),
        ),
        max_size=8,
    ),
    kind=st.integers(0, 300),
)
def test_whatever_is_asked_is_answered_or_passed_on(labels: list[bytes], kind: int) -> None:
    """Names of any bytes, in which parts of ours occur; and what ends in our domain is never passed on."""
    made = Zone()
    made.configure(ranges=("10.0.0.0/12", "10.96.0.0/16"), addresses=("10.1.0.1",))
    made.update(services())
    packet = wire.write_query(7, wire.Question(names.from_labels(labels), kind), flags=wire.RD, edns=None)
    answer = respond.respond(packet, made, Asker(served=True, namespace="default"), random.shuffle, udp=True)
    if isinstance(answer, Forward):
        assert labels[-1:] != [b"orch"]
    else:
        assert answer is not None
        assert dns.message.from_wire(answer).id == 7


@given(data=st.data())
def test_any_order_of_changes_leads_to_the_same_zone(data: st.DataObject) -> None:
    """What a zone says depends on what is there now, not on how it came."""
    pool = [
        dpb.NetworkService(id=f"s{n}", namespace="ab"[n % 2], name=f"w{n // 2}", address=f"10.96.0.{n}",
                           endpoints=[endpoint(f"t{n}", 1, f"10.1.0.{n + 2}")])
        for n in range(6)
    ]  # fmt: skip
    walked = Zone()
    now: dict[str, dpb.NetworkService] = {}
    for chosen in data.draw(st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=6)):
        now = {pool[n].id: pool[n] for n in chosen}
        walked.update(now)
    fresh = Zone()
    fresh.update(now)
    for zone in (walked, fresh):
        zone.configure(ranges=("10.0.0.0/8",), addresses=("10.1.0.1",))
    for service in pool:
        for name, kind in (
            (f"{service.name}.{service.namespace}.orch", "A"),
            (f"{service.namespace}.orch", "A"),
            (".".join(reversed(service.address.split("."))) + ".in-addr.arpa", "PTR"),
            (".".join(reversed(service.endpoints[0].address.split("."))) + ".in-addr.arpa", "PTR"),
        ):
            one, other = ask(walked, name, kind), ask(fresh, name, kind)
            assert one is not None
            assert other is not None
            assert (one.rcode(), one.answer) == (other.rcode(), other.answer)
