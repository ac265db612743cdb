"""The node's nftables table, as the text that `nft -f -` takes in one transaction.

One rule: nothing in the table but elements of sets and maps says which services and tasks there are, except one short
chain for each number of endpoints and one for each service that has tasks here. So a change of an endpoint is a few
elements, and costs the same whether there are ten services or ten thousand.

    from a task, from outside      prerouting ─┬─ a virtual address ─► virtual ─────► endpoints-any-N   ─► an endpoint
    from the node's own processes  output     ─┘  a port of the node ► published ───► outside-tcp-any-N ─► an endpoint

    virtual     `services` tells for (address, protocol, port) how many endpoints there are, as the chain to go to:
                `endpoints-any-3`, which draws one of the places 0, 1 and 2; and `endpoints` tells who has it
    published   the same with `published`, `outside-tcp` and `outside-udp`, and no address. Two maps, because nft cannot
                read one back for both: it takes the type `th dport` for a protocol of its own
    forward     whatever goes to a task of this node goes through `inbound`, and there to its service's own chain
                `to-…`, which lists whom it shares a network with. What came through a published port has been let in
                by whoever published it
    refused     a virtual address that was not translated: no endpoint, no such port, no such service
    invalid     what belongs to no connection, or to no moment of it, is not translated either. It is dropped: answered
                with a reset, by whoever it seems to be for, it would end the connection that it was a late part of

A cluster with IPv6 has the twins of these sets and maps, with a 6 at the ends of their names, and the same chains: a
rule for each family stands where there is one for IPv4. The fixed part is in `fixedrules`.

In nft's own language: nftables 1.0.6 crashes on the JSON form of a map whose values have two parts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from protos.families import V4, V6, Family

TABLE = "orch"
FAMILY = "inet"
HASH_SEED = 0x6F726368
"""The same on every node and after every start, so that a client keeps its endpoint."""

Element = tuple[str, str]
"""The name of a set or map, and a key in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What somebody (a service with its tasks here) contributes to the table."""

    elements: Mapping[Element, str] = field(default_factory=dict)  # and the value; empty in a set
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: frozenset[str] = frozenset()  # of addresses, besides the fixed ones
    balancers: frozenset[str] = frozenset()  # as `balancer` names them
    udp_targets: frozenset[tuple[str, bool]] = frozenset()  # where UDP is translated to, and whether by a host's port
    udp_ports: frozenset[int] = frozenset()  # of the node, which are translated


NOTHING = Part()


def balancer(source: str, count: int, *, by_client: bool) -> str:
    """The name of the chain that chooses one of so many endpoints in a map, such as `endpoints`."""
    assert count > 0, "nothing to choose from"
    return f"{source}-{'client' if by_client and count > 1 else 'any'}-{count}"


def balancer_rule(name: str) -> str:
    """outside-tcp-client-3 → dnat ip to tcp dport . jhash ip saddr mod 3 … map @outside-tcp"""
    source, kind, count = name.rsplit("-", 2)
    ip = "ip6" if source.endswith("6") else "ip"
    place = f"numgen random mod {count}" if kind == "any" else f"jhash {ip} saddr mod {count} seed {HASH_SEED:#x}"
    key = {"endpoints": f"{ip} daddr", "outside-tcp": "tcp dport", "outside-udp": "udp dport"}[source.removesuffix("6")]
    return f"dnat {ip} to {key} . {place} map @{source}"


def elements(verb: str, changed: Iterable[tuple[Element, str | None]]) -> Iterator[str]:
    """`add element …` or `delete element …`, one line a set."""
    by_set: dict[str, list[str]] = {}
    for (name, key), value in changed:
        by_set.setdefault(name, []).append(f"{key} : {value}" if value else key)
    for name, texts in by_set.items():
        yield f"{verb} element {FAMILY} {TABLE} {name} {{ {', '.join(texts)} }}"


def chain(name: str, rules: Iterable[str], *, there: bool) -> Iterator[str]:
    """A chain with exactly these rules."""
    yield f"{'flush' if there else 'add'} chain {FAMILY} {TABLE} {name}"
    for rule in rules:
        yield f"add rule {FAMILY} {TABLE} {name} {rule}"


def no_chain(name: str) -> Iterator[str]:
    """No chain of that name, which is there."""
    yield f"flush chain {FAMILY} {TABLE} {name}"
    yield f"delete chain {FAMILY} {TABLE} {name}"


def address_set(name: str) -> str:
    """A set of addresses, such as `net-…`, or `net6-…` for IPv6."""
    family = V6 if name.partition("-")[0].endswith(V6.suffix) else V4
    return f"add set {FAMILY} {TABLE} {name} {{ type {address_type(family)}; }}"


def no_set(name: str) -> str:
    """No set of that name, which is there."""
    return f"delete set {FAMILY} {TABLE} {name}"


def address_type(family: Family) -> str:
    """What nft calls an address."""
    return f"ipv{family.version}_addr"
