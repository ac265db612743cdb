"""A packet → the answer, or the question that goes to the node's own servers.

Three rules: nothing below the cluster's domain, and no name of a service, ever leaves the node; only this node's own
tasks are served, so that nobody else can make it ask the world; and for a task that reaches nothing outside the cluster
there are no names outside, since a question carries as much out as a connection does.
"""

from typing import Final, NamedTuple

from agent.core.dns import wire
from agent.core.dns.wire import Answer, Edns, Query, Question, Refusal
from agent.core.dns.zone import Shuffle, Zone

_NOT_FOR_US: Final = frozenset({0, wire.OPT, 249, wire.TSIG, wire.IXFR, wire.AXFR, 253, 254})  # TKEY, MAILB, MAILA


class Asker(NamedTuple):
    """Who sent a packet."""

    served: bool
    namespace: str | None  # of the task; None for the node itself
    outside: bool = True  # it may reach what is not of the cluster


class Upstream(NamedTuple):
    """A question to the node's own servers. Equal ones have equal answers."""

    name: bytes  # in small letters
    kind: int
    dnssec: bool
    unchecked: bool  # the CD bit

    def to_wire(self, number: int, *, with_edns: bool = True) -> bytes:
        """The packet that asks it."""
        edns = Edns(udp_bytes=wire.UDP_BYTES, version=0, dnssec=self.dnssec) if with_edns else None
        flags = wire.RD | (wire.CD if self.unchecked else 0)
        return wire.write_query(number, Question(self.name, self.kind), flags=flags, edns=edns)


class Forward(NamedTuple):
    """What somebody else must be asked."""

    query: Query
    upstream: Upstream


def respond(packet: bytes, zone: Zone, asker: Asker, shuffle: Shuffle, *, udp: bool) -> bytes | Forward | None:
    """None: this gets no answer."""
    query = wire.parse_query(packet)
    if query is None:
        return None
    if isinstance(query, Refusal):
        return wire.write_refusal(query)
    code = _refusal(query, asker)
    if code:
        return wire.write(query, Answer(code), udp=udp)
    name, kind = query.question
    answer = zone.lookup(name, kind, asker.namespace, shuffle)
    if answer is not None:
        return wire.write(query, answer, udp=udp)
    if not asker.outside:
        return wire.write(query, Answer(wire.NXDOMAIN), udp=udp)
    dnssec = query.edns is not None and query.edns.dnssec
    return Forward(query, Upstream(name.lower(), kind, dnssec, bool(query.flags & wire.CD)))


def _refusal(query: Query, asker: Asker) -> int:
    if query.edns is not None and query.edns.version:
        return wire.BADVERS
    if not asker.served or query.question.kind in _NOT_FOR_US:
        return wire.REFUSED
    return wire.NOERROR
