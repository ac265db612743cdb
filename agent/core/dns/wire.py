"""Packets of the domain name system, read and written (RFC 1035, 4; EDNS: RFC 6891).

Two rules: records are held with whole names in them, so that they can be kept and written into any other packet; and
what is written fits the limit that it is given, or says that it is truncated.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from agent.core.dns.names import MalformedError, Writer, read, read_plain

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
HINFO: Final = 13
MX: Final = 15
AAAA: Final = 28
SRV: Final = 33
OPT: Final = 41
TSIG: Final = 250
IXFR: Final = 251
AXFR: Final = 252
ANY: Final = 255
IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16

QR: Final = 0x8000
AA: Final = 0x0400
TC: Final = 0x0200
RD: Final = 0x0100
RA: Final = 0x0080
CD: Final = 0x0010
OPCODE: Final = 0x7800

PLAIN_BYTES: Final = 512
"""The most that whoever does not speak EDNS takes over UDP."""
UDP_BYTES: Final = 1232
"""The most that is sent over UDP: it goes through every network in one piece."""
TCP_BYTES: Final = 65_535
MAX_EXTRA: Final = 16
"""Of the records that may stand in a query, which are one or two."""

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION_END: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_SOA_NUMBERS: Final = struct.Struct("!IIIII")
_DO: Final = 0x8000

_NAMES_INSIDE: Final = {
    **dict.fromkeys((NS, CNAME, PTR, 3, 4, 7, 8, 9, 39), (0, 1)),  # MD, MF, MB, MG, MR; DNAME
    **dict.fromkeys((SOA, 14, 17), (0, 2)),  # MINFO, RP
    **dict.fromkeys((MX, 18, 21, 36), (2, 1)),  # AFSDB, RT, KX
    SRV: (6, 1),
    26: (2, 2),  # PX
}
"""By type: how many bytes stand before the names in its data, and how many names. All that may come with pointers in
them: RFC 3597, 4; what comes later has none."""
_COMPRESSED: Final = frozenset({NS, CNAME, SOA, PTR, MX})


class Question(NamedTuple):
    """What is asked; the name in the letters that it came in."""

    name: bytes
    kind: int


class Edns(NamedTuple):
    """What the sender says of itself."""

    udp_bytes: int
    version: int
    dnssec: bool


class Query(NamedTuple):
    """A packet that asks."""

    number: int
    flags: int
    question: Question
    edns: Edns | None


class Refusal(NamedTuple):
    """A packet that is answered with an error alone."""

    number: int
    flags: int
    code: int


class Record(NamedTuple):
    """A record of class IN."""

    name: bytes
    kind: int
    ttl_s: int
    data: bytes  # with whole names


class Answer(NamedTuple):
    """What is answered, apart from whom."""

    code: int = NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = False
    truncated: bool = False


def parse_query(packet: bytes) -> Query | Refusal | None:
    """What is asked; None for what no answer may be sent to, since it is an answer itself or too short for one."""
    if len(packet) < _HEADER.size:
        return None
    number, flags, questions, answers, authority, extra = _HEADER.unpack_from(packet)
    if flags & QR:
        return None
    if flags & OPCODE:
        return Refusal(number, flags, NOTIMP)
    try:
        _check_counts(questions, answers, authority, extra)
        end = read_plain(packet, _HEADER.size)
        kind, group = _kind_and_class(packet, end)
        edns = _edns_of(packet, end + 4, authority + extra) if authority or extra else None
    except MalformedError:
        return Refusal(number, flags, FORMERR)
    if group != IN:
        return Refusal(number, flags, REFUSED)
    return Query(number, flags, Question(packet[_HEADER.size : end], kind), edns)


def _check_counts(questions: int, answers: int, authority: int, extra: int) -> None:
    if questions != 1 or answers or max(authority, extra) > MAX_EXTRA:
        raise MalformedError("not one question, or more than that")


def _kind_and_class(packet: bytes, offset: int) -> tuple[int, int]:
    if offset + 4 > len(packet):
        raise MalformedError("half a question")
    kind, group = _QUESTION_END.unpack_from(packet, offset)
    return kind, group


def _edns_of(packet: bytes, offset: int, count: int) -> Edns | None:
    found = None
    for name, kind, group, ttl, _, _ in _walk(packet, offset, count):
        if kind != OPT:
            continue
        if found is not None or name != b"\0":
            raise MalformedError("a second EDNS record, or one with a name")
        found = Edns(udp_bytes=group, version=ttl >> 16 & 0xFF, dnssec=bool(ttl & _DO))
    return found


def _walk(packet: bytes, offset: int, count: int) -> Iterator[tuple[bytes, int, int, int, int, int]]:
    """Name, type, class, TTL, and where the data of each record begins and ends."""
    for _ in range(count):
        name, offset = read(packet, offset)
        if offset + _RECORD.size > len(packet):
            raise MalformedError("half a record")
        kind, group, ttl, size = _RECORD.unpack_from(packet, offset)
        begin, offset = offset + _RECORD.size, offset + _RECORD.size + size
        if offset > len(packet):
            raise MalformedError("a record beyond the end of the packet")
        yield name, kind, group, ttl, begin, offset


def parse_answer(packet: bytes, number: int, question: Question) -> Answer | None:
    """What a server answers to this question; None for what is no answer to it."""
    try:
        got, flags, questions, answers, authority, extra = _HEADER.unpack_from(packet)
        if got != number or not flags & QR or flags & OPCODE or questions != 1:
            return None
        end = read_plain(packet, _HEADER.size)
        asked = packet[_HEADER.size : end].lower(), *_kind_and_class(packet, end)
        if asked != (question.name.lower(), question.kind, IN):
            return None
        records = _walk(packet, end + 4, answers + authority + extra)
        found = [_record(packet, *each) if each[2] == IN and each[1] != OPT else None for each in records]
    except (MalformedError, struct.error):
        return None
    first, second = answers, answers + authority
    return Answer(
        code=flags & 0xF,
        answers=_present(found[:first]),
        authority=_present(found[first:second]),
        additional=_present(found[second:]),
        truncated=bool(flags & TC),
    )


def _present(records: list[Record | None]) -> tuple[Record, ...]:
    return tuple(record for record in records if record is not None)


def _record(packet: bytes, name: bytes, kind: int, _: int, ttl: int, begin: int, end: int) -> Record:
    ttl_s = ttl if ttl < 1 << 31 else 0  # RFC 2181, 8
    if kind not in _NAMES_INSIDE:
        return Record(name, kind, ttl_s, packet[begin:end])
    before, count = _NAMES_INSIDE[kind]
    data, offset = packet[begin : begin + before], begin + before
    for _ in range(count):
        inside, offset = read(packet, offset)
        data += inside
    if offset > end or (kind == SOA and end - offset != _SOA_NUMBERS.size):
        raise MalformedError("names that do not fit their record")
    return Record(name, kind, ttl_s, data + packet[offset:end])


def write_query(number: int, question: Question, *, flags: int, edns: Edns | None) -> bytes:
    """A packet that asks."""
    packet = _HEADER.pack(number, flags, 1, 0, 0, int(edns is not None))
    packet += question.name + _QUESTION_END.pack(question.kind, IN)
    return packet + (_opt(edns.udp_bytes, 0, dnssec=edns.dnssec) if edns is not None else b"")


def _opt(udp_bytes: int, code: int, *, dnssec: bool) -> bytes:
    return b"\0" + _RECORD.pack(OPT, udp_bytes, (code >> 4) << 24 | (_DO if dnssec else 0), 0)


def write_refusal(refusal: Refusal) -> bytes:
    """The answer to what could not be read: its header alone."""
    flags = QR | refusal.flags & (OPCODE | RD) | RA | refusal.code
    return _HEADER.pack(refusal.number, flags, 0, 0, 0, 0)


def write(query: Query, answer: Answer, *, udp: bool) -> bytes:
    """The answer for whoever asked. Over UDP what does not fit is left out from the end, a record at a time."""
    edns, question = query.edns, query.question
    opt = _opt(UDP_BYTES, answer.code, dnssec=edns.dnssec) if edns is not None else b""
    most = _most(edns) if udp else TCP_BYTES
    packet = Writer(bytes(_HEADER.size))
    packet.name(question.name)
    packet.data += _QUESTION_END.pack(question.kind, IN)
    counts = []
    truncated = answer.truncated
    for section in (answer.answers, answer.authority):
        count = 0 if truncated else _append(packet, section, most - len(opt))
        truncated = truncated or count < len(section)
        counts.append(count)
    # What is only additional may be missing without a word.
    extra = 0 if truncated else _append(packet, answer.additional, most - len(opt))
    packet.data += opt
    flags = QR | RA | query.flags & (OPCODE | RD | CD) | answer.code & 0xF
    flags |= (AA if answer.authoritative else 0) | (TC if truncated else 0)
    _HEADER.pack_into(packet.data, 0, query.number, flags, 1, *counts, extra + bool(opt))
    return bytes(packet.data)


def _most(edns: Edns | None) -> int:
    return PLAIN_BYTES if edns is None else max(PLAIN_BYTES, min(edns.udp_bytes, UDP_BYTES))


def _append(packet: Writer, records: Sequence[Record], most: int) -> int:
    """How many of them fitted."""
    for count, record in enumerate(records):
        before = len(packet.data)
        packet.name(record.name)
        packet.data += _RECORD.pack(record.kind, IN, record.ttl_s, 0)
        begin = len(packet.data)
        _append_data(packet, record)
        if len(packet.data) > most:
            del packet.data[before:]
            return count
        struct.pack_into("!H", packet.data, begin - 2, len(packet.data) - begin)
    return len(records)


def _append_data(packet: Writer, record: Record) -> None:
    if record.kind not in _COMPRESSED:
        packet.data += record.data
        return
    offset, count = _NAMES_INSIDE[record.kind]
    packet.data += record.data[:offset]
    for _ in range(count):
        end = read_plain(record.data, offset)
        packet.name(record.data[offset:end])
        offset = end
    packet.data += record.data[offset:]


def soa(*, primary: bytes, contact: bytes, serial: int, negative_ttl_s: int) -> bytes:
    """The data of a SOA record. Nobody copies the zone, so the other numbers mean nothing."""
    return primary + contact + _SOA_NUMBERS.pack(serial & 0xFFFFFFFF, 60, 10, 3600, negative_ttl_s)


def negative_ttl_s(record: Record) -> int:
    """How long a SOA record lets one remember that something is not there (RFC 2308, 5)."""
    return min(record.ttl_s, int(_SOA_NUMBERS.unpack_from(record.data, len(record.data) - _SOA_NUMBERS.size)[4]))


def srv(*, priority: int, weight: int, port: int, target: bytes) -> bytes:
    """The data of a SRV record (RFC 2782)."""
    return struct.pack("!HHH", priority, weight, port) + target
