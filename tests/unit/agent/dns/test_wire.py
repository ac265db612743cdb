"""Packets: what we write an independent library reads, what it writes we read, and nothing that comes can hurt."""

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.dns import names, wire
from agent.core.dns.wire import Answer, Edns, Query, Question, Record, Refusal

LABELS = st.binary(min_size=1, max_size=63)
NAMES = st.lists(LABELS, max_size=5).filter(lambda labels: sum(len(label) + 1 for label in labels) < 255)
HOSTS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,20}", fullmatch=True)


def asked(text: str, kind: int = wire.A, *, edns: Edns | None = None, number: int = 7) -> Query:
    return Query(number, wire.RD, Question(names.from_text(text), kind), edns)


def address(number: int) -> Record:
    return Record(names.from_text("web.default.orch"), wire.A, 5, number.to_bytes(4, "big"))


@given(labels=NAMES)
def test_names_come_back(labels: list[bytes]) -> None:
    """From labels to a packet and back, whatever bytes are in them."""
    name = names.from_labels(labels)
    assert names.labels(name) == labels
    assert names.read(b"xx" + name + b"yy", 2) == (name, 2 + len(name))
    assert dns.name.from_wire(name, 0)[0].labels == (*labels, b"")


@pytest.mark.parametrize("text", ["", ".", "web.orch", "web.orch."])
def test_names_as_text(text: str) -> None:
    """With or without the dot at the end."""
    assert names.to_text(names.from_text(text)) == (text.rstrip(".") or ".")


@pytest.mark.parametrize("text", ["a..b", f"{'x' * 64}.orch", ".".join(["x" * 60] * 5)])
def test_what_is_no_name(text: str) -> None:
    """Nothing like it is ever written."""
    with pytest.raises(ValueError, match="longer than"):
        names.from_text(text)


@pytest.mark.parametrize(
    ("packet", "offset"),
    [
        (b"\xc0\x00", 0),  # to itself
        (b"\x01a\xc0\x00\xc0\x02", 4),  # there and back
        (b"\xc0\x02\x00", 0),  # ahead
        (b"\x01a", 0),  # without an end
        (b"\xc0", 0),
        (b"\x40a\x00", 0),  # a label of a type that is long forgotten
        (b"\x05ab", 0),
        (b"".join(b"\x3f" + b"x" * 63 for _ in range(5)) + b"\0", 0),
    ],
)
def test_names_that_lead_nowhere(packet: bytes, offset: int) -> None:
    """One error, in a bounded time."""
    with pytest.raises(names.MalformedError):
        names.read(packet, offset)


@given(packet=st.binary(max_size=600))
def test_random_bytes_are_answered_or_dropped(packet: bytes) -> None:
    """No error leaves the reader; whatever it gives can be answered."""
    found = wire.parse_query(packet)
    if isinstance(found, Refusal):
        assert dns.message.from_wire(wire.write_refusal(found)).id == found.number
    elif found is not None:
        dns.message.from_wire(wire.write(found, Answer(wire.NXDOMAIN), udp=True))


@given(change=st.tuples(st.integers(0, 60), st.integers(0, 255)), cut=st.integers(0, 60))
def test_damaged_queries_are_answered_or_dropped(change: tuple[int, int], cut: int) -> None:
    """Nearer to the truth than random bytes."""
    packet = bytearray(dns.message.make_query("web.default.orch", "A", use_edns=0, payload=1232).to_wire())
    packet[change[0] % len(packet)] = change[1]
    found = wire.parse_query(bytes(packet[: len(packet) - cut]))
    if isinstance(found, Query):
        dns.message.from_wire(wire.write(found, Answer(answers=(address(1),)), udp=True))
    else:
        assert found is None or found.code in {wire.FORMERR, wire.NOTIMP, wire.REFUSED}


@given(packet=st.binary(max_size=300))
def test_random_answers_are_passed_over(packet: bytes) -> None:
    """Also behind a header and a question that are right."""
    question = Question(names.from_text("example.com"), wire.A)
    assert wire.parse_answer(packet, 7, question) is None
    right = bytes((0, 7, 0x81, 0x80, 0, 1, 0, 2, 0, 1, 0, 1)) + question.name + b"\0\1\0\1"
    found = wire.parse_answer(right + packet, 7, question)
    if found is not None:
        wire.write(asked("example.com"), found, udp=False)


@given(
    labels=st.lists(HOSTS, min_size=1, max_size=5),
    kind=st.integers(1, 300),
    edns=st.one_of(st.none(), st.integers(0, 65535)),
    dnssec=st.booleans(),
)
def test_queries_of_another_library_are_read(labels: list[str], kind: int, edns: int | None, *, dnssec: bool) -> None:
    """Its names, types and EDNS records."""
    name = ".".join(labels)
    made = dns.message.make_query(name, kind)
    if edns is not None:
        made.use_edns(0, ednsflags=dns.flags.DO if dnssec else 0, payload=edns)
    found = wire.parse_query(made.to_wire())
    assert isinstance(found, Query)
    assert (found.number, names.to_text(found.question.name), found.question.kind) == (made.id, name, kind)
    assert found.edns == (Edns(edns, 0, dnssec) if edns is not None else None)


def test_answers_are_read_by_another_library() -> None:
    """Flags, the question as it was asked, every section, and EDNS in return for EDNS."""
    query = asked("WEB.default.Orch", edns=Edns(4096, 0, dnssec=True))
    soa = wire.soa(primary=names.from_text("ns.orch"), contact=names.from_text("root.orch"), serial=3, negative_ttl_s=1)
    target = wire.srv(priority=0, weight=1, port=80, target=names.from_text("web-1.web.default.orch"))
    answer = Answer(
        answers=(address(1)._replace(name=query.question.name), Record(query.question.name, wire.SRV, 2, target)),
        authority=(Record(names.from_text("orch"), wire.SOA, 1, soa),),
        additional=(address(2),),
        authoritative=True,
    )
    packet = wire.write(query, answer, udp=True)
    read = dns.message.from_wire(packet)
    assert read.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.RA
    assert read.question[0].name.to_text() == "WEB.default.Orch."
    assert [entry.to_text() for entry in read.answer] == [
        "WEB.default.Orch. 5 IN A 0.0.0.1",
        "WEB.default.Orch. 2 IN SRV 0 1 80 web-1.web.default.orch.",
    ]
    assert read.authority[0].to_text() == "Orch. 1 IN SOA ns.Orch. root.Orch. 3 60 10 3600 1"
    assert read.additional[0].to_text() == "WEB.default.Orch. 5 IN A 0.0.0.2"
    assert (read.edns, read.payload, bool(read.ednsflags & dns.flags.DO)) == (0, wire.UDP_BYTES, True)
    assert packet.lower().count(b"\x04orch") == 2, "once compressed, and once where it may not be: in SRV's data"


def test_bad_version_is_told_in_two_places() -> None:
    """The upper bits of the code stand in the EDNS record."""
    read = dns.message.from_wire(
        wire.write(asked("a", edns=Edns(512, 1, dnssec=False)), Answer(wire.BADVERS), udp=True)
    )
    assert read.rcode() == dns.rcode.BADVERS


@given(count=st.integers(0, 120), size=st.one_of(st.none(), st.integers(0, 65535)))
def test_answers_fit(count: int, size: int | None) -> None:
    """What the client takes, never more than goes through in one piece; with a flag when something is missing."""
    edns = Edns(size, 0, dnssec=False) if size is not None else None
    query = asked("web.default.orch", edns=edns)
    answer = Answer(answers=tuple(address(number) for number in range(count)), additional=(address(9999),))
    packet = wire.write(query, answer, udp=True)
    limit = 512 if size is None else min(max(size, 512), 1232)
    assert len(packet) <= limit
    read = dns.message.from_wire(packet)
    told = len(read.answer[0]) if read.answer else 0
    assert bool(read.flags & dns.flags.TC) == (told < count)
    if told < count:
        assert len(packet) + 16 > limit, "as many as fit"
        assert len(dns.message.from_wire(wire.write(query, answer, udp=False)).answer[0]) == count


def test_packets_that_get_no_answer() -> None:
    """Answers, so that two servers never talk to each other for ever, and what has no number."""
    packet = wire.write_query(7, Question(names.from_text("web"), wire.A), flags=wire.QR, edns=None)
    assert wire.parse_query(packet) is None
    assert wire.parse_query(packet[:11]) is None


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (dns.message.make_query("web.orch", "A", rdclass="CH"), wire.REFUSED),
        (dns.message.Message(7), wire.FORMERR),
    ],
)
def test_refused_packets(packet: dns.message.Message, code: int) -> None:
    """With the code that tells why."""
    found = wire.parse_query(packet.to_wire())
    assert isinstance(found, Refusal)
    assert found.code == code


def test_other_operations_are_not_implemented() -> None:
    """The sender reads which one it was."""
    made = dns.message.make_query("web.orch", "SOA")
    made.set_opcode(dns.opcode.NOTIFY)
    found = wire.parse_query(made.to_wire())
    assert isinstance(found, Refusal)
    read = dns.message.from_wire(wire.write_refusal(found))
    assert (read.opcode(), read.rcode(), read.id) == (dns.opcode.NOTIFY, dns.rcode.NOTIMP, made.id)


def test_two_edns_records_are_one_too_many() -> None:
    """RFC 6891, 6.1.1."""
    packet = bytearray(dns.message.make_query("web.orch", "A", use_edns=0).to_wire())
    packet[11] = 2
    found = wire.parse_query(bytes(packet) + packet[-11:])
    assert isinstance(found, Refusal)
    assert found.code == wire.FORMERR


RECORDS = """\
id 7
opcode QUERY
rcode NOERROR
flags QR RD RA
;QUESTION
www.example.com. IN A
;ANSWER
www.example.com. 60 IN CNAME example.com.
example.com. 60 IN A 192.0.2.1
example.com. 60 IN MX 10 mail.example.com.
example.com. 60 IN NAPTR 1 2 "s" "x" "" _sip._udp.example.com.
example.com. 60 IN PX 10 a.example.com. b.example.com.
;AUTHORITY
example.com. 60 IN SOA ns.example.com. root.example.com. 1 2 3 4 5
example.com. 60 IN NS ns.example.com.
;ADDITIONAL
ns.example.com. 60 IN AAAA 2001:db8::1
_sip._udp.example.com. 60 IN SRV 1 2 3 sip.example.com.
"""


def test_what_another_server_says_is_passed_on() -> None:
    """Its pointers are resolved, and made anew."""
    theirs = dns.message.from_text(RECORDS)
    found = wire.parse_answer(theirs.to_wire(), 7, Question(names.from_text("WWW.example.com"), wire.A))
    assert found is not None
    ours = dns.message.from_wire(wire.write(asked("www.example.com"), found, udp=False))
    assert ours.sections == theirs.sections
    assert wire.negative_ttl_s(found.authority[0]) == 5


@pytest.mark.parametrize(
    ("number", "name", "kind"), [(8, "www.example.com", 1), (7, "w.example.com", 1), (7, "www.example.com", 28)]
)
def test_answers_to_something_else_are_none(number: int, name: str, kind: int) -> None:
    """Another number, name or type: somebody guesses."""
    packet = dns.message.from_text(RECORDS).to_wire()
    assert wire.parse_answer(packet, number, Question(names.from_text(name), kind)) is None


@pytest.mark.parametrize("data", [b"\0", b"\0\0" + bytes(19), b"\0\0" + bytes(21), b"\x01a"])
def test_a_record_that_does_not_fit_its_names_is_none(data: bytes) -> None:
    """A SOA record with too few numbers would else be read beyond its end."""
    question = Question(names.from_text("x"), wire.SOA)
    head = bytes((0, 7, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0)) + question.name + b"\0\6\0\1"
    record = question.name + b"\0\6\0\1" + bytes(4) + len(data).to_bytes(2, "big") + data
    assert wire.parse_answer(head + record, 7, question) is None
