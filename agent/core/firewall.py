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

In nft's own language: nftables 1.0.6 crashes on the JSON form of a map whose values have two parts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from agent.core import overlay
from protos.orch.v1 import dispatcher_pb2 as dpb

TABLE = "orch"
FAMILY = "inet"
HASH_SEED = 0x6F726368
"""The same on every node and after every start, so that a client keeps its endpoint."""

LINKS = "orch-*"
DNS_PORT = 53
QUESTIONS = "limit rate over 20000/second burst 20000 packets"
"""Of each asker. The agent reads and drops some hundred thousand a second."""

ABOUT_DNS = f"@th,240,16 {DNS_PORT}"
"""An ICMP error has 8 bytes of its own, then the packet's header with 20, then 2 for the port that it came from."""

TUNNELLED = f"udp dport {overlay.PORT} @th,96,24 {overlay.VNI:#x}"
"""A packet of the tunnel between nodes: its network identifier comes after 8 bytes of UDP and 4 of VXLAN."""

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
    place = f"numgen random mod {count}" if kind == "any" else f"jhash ip saddr mod {count} seed {HASH_SEED:#x}"
    key = {"endpoints": "ip daddr", "outside-tcp": "tcp dport", "outside-udp": "udp dport"}[source]
    return f"dnat ip to {key} . {place} map @{source}"


def table(network: dpb.NodeNetwork, trusted: Sequence[str] = ()) -> str:
    """The fixed part. Whatever the table held before is replaced in the same transaction.

    `trusted`: ranges outside the cluster that reach tasks by their own addresses.
    """
    return f"""\
table {FAMILY} {TABLE}
delete table {FAMILY} {TABLE}
table {FAMILY} {TABLE} {{
{_SETS}
{_nat(network)}
{_filter(network, trusted)}
{_INBOUND_ENDS}
}}
"""


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
    """A set of addresses."""
    return f"add set {FAMILY} {TABLE} {name} {{ type ipv4_addr; }}"


def no_set(name: str) -> str:
    """No set of that name, which is there."""
    return f"delete set {FAMILY} {TABLE} {name}"


def gateway(subnet: str) -> str:
    """The node's own address among its tasks: the first one of their range."""
    return str(IPv4Network(subnet)[1])


_SETS = """\
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map endpoints { typeof ip daddr . numgen random mod 65536 : ip daddr; }
  map published { type inet_proto . inet_service : verdict; }
  map outside-tcp { typeof tcp dport . numgen random mod 65536 : ip daddr . tcp dport; }
  map outside-udp { typeof udp dport . numgen random mod 65536 : ip daddr . udp dport; }
  set closed { type inet_proto . inet_service; counter; }
  set addresses { type ipv4_addr; }
  set requests { type ipv4_addr; counter; }
  set refusals { type ipv4_addr; counter; }
  set traffic { type ipv4_addr; counter; }
  set published-requests { type inet_proto . inet_service; counter; }
  set published-traffic-tcp { type inet_service; counter; }
  set published-traffic-udp { type inet_service; counter; }
  map tasks { type ipv4_addr : verdict; }
  set barred { type ipv4_addr; counter; }
  set hairpin { type ipv4_addr . ipv4_addr; }
  set internal { type ipv4_addr; }
  set known { type ipv4_addr; }
  set askers { type ipv4_addr; size 4096; flags dynamic, timeout; timeout 10s; }
  set gateways { type ipv4_addr; }
  set nodes { type ipv4_addr; }"""


def _nat(network: dpb.NodeNetwork) -> str:
    own, cluster, here = gateway(network.subnet), network.cluster_range, network.subnet
    services = network.service_range
    to_virtual = f"ip daddr {services} goto virtual" if services else ""
    through_port = f"ct original ip daddr != {services}" if services else ""
    return f"""\
  chain virtual {{
    icmp type echo-request ip daddr @addresses dnat ip to {own}
    ip daddr @requests
    ip daddr . meta l4proto . th dport vmap @services
  }}
  chain published_ports {{
    # The node's answers to its tasks' questions for names come from here, whatever is published.
    ip daddr {own} th dport {DNS_PORT} return
    meta l4proto . th dport @published-requests
    meta l4proto . th dport vmap @published
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {to_virtual}
    fib daddr type local goto published_ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {to_virtual}
    fib daddr type local goto published_ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    # A task that was led to itself would answer itself, untranslated.
    ip saddr . ip daddr @hairpin snat ip to {own}
    ip saddr 127.0.0.0/8 ip daddr {cluster} snat ip to {own}
    # The answer of a task of another node has to come back this way.
    ip saddr != {cluster} ip daddr {cluster} ip daddr != {here} snat ip to {own}
    ct status dnat {through_port} ip daddr {cluster} ip daddr != {here} snat ip to {own}
    ip saddr {here} ip daddr != {cluster} masquerade
  }}"""


_REFUSALS = """\
  chain refused {
    ip daddr @refusals
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }
  chain prohibited {
    reject with icmp type admin-prohibited
  }"""


def _filter(network: dpb.NodeNetwork, trusted: Sequence[str]) -> str:
    own, cluster, here = gateway(network.subnet), network.cluster_range, network.subnet
    services = network.service_range
    refuse_virtual = f"ip daddr {services} goto refused" if services else ""
    drop_virtual = f"ct state invalid ip daddr {services} drop" if services else ""
    through_port = f"ct original ip daddr != {services}" if services else ""
    let_in = f"ip saddr {{ {', '.join(trusted)} }} accept" if trusted else ""
    return f"""\
{_REFUSALS}
  chain input {{
    type filter hook input priority filter; policy accept;
    # What is inside would have passed every rule of the node that it claims to come from.
    {TUNNELLED} ip saddr != @nodes drop
    # route_localnet makes the node's 127.0.0.1 reachable from outside; only answers may come that way.
    iifname != "lo" ip daddr 127.0.0.0/8 ct state != {{ established, related }} drop
    iifname "{LINKS}" meta nfproto ipv6 drop
    ct state invalid ip saddr {cluster} drop
    ct state invalid fib daddr type local meta l4proto . th dport @published-requests drop
    # Questions wait in one line, which nobody may fill: the agent has its own, narrower limit for each task.
    ip daddr {own} udp dport {DNS_PORT} update @askers {{ ip saddr {QUESTIONS} }} counter drop
    ct state new ip daddr {own} th dport {DNS_PORT} accept
    ct state new fib daddr type local meta l4proto . th dport @closed goto refused
    ct state new ip saddr @internal ip daddr != {own} goto prohibited
  }}
  chain refuse_own {{
    type filter hook output priority filter; policy accept;
    # While the agent is started again nobody listens there. Silence makes whoever asks ask again, a refusal give up.
    ip saddr {own} icmp type destination-unreachable icmp code port-unreachable {ABOUT_DNS} drop
    {drop_virtual}
    {refuse_virtual}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    # A task's own packets leave with the node's address: other nodes would take this for a tunnel's.
    iifname "{LINKS}" {TUNNELLED} drop
    ct status dnat ct original ip daddr @traffic
    ct status dnat {through_port} meta l4proto tcp ct original proto-dst @published-traffic-tcp
    ct status dnat {through_port} meta l4proto udp ct original proto-dst @published-traffic-udp
    ct state established,related accept
    ct state invalid ip saddr {cluster} drop
    {drop_virtual}
    iifname "{LINKS}" meta nfproto ipv6 drop
    oifname "{LINKS}" meta nfproto ipv6 drop
    {refuse_virtual}
    ip saddr @internal ip daddr != {cluster} goto prohibited
    ip daddr {here} goto inbound
    # To tasks of other nodes: they know whom they let in. Nobody outside is led there but by a published port.
    ip daddr {cluster} ct status dnat accept
    {let_in}
    ip daddr {cluster} ip saddr != {cluster} goto prohibited
  }}
  chain inbound {{
    ct status dnat {through_port} accept
    ip saddr @gateways accept
    {let_in}
    ip saddr != {cluster} goto prohibited
    ip daddr vmap @tasks
    goto prohibited
  }}"""


_INBOUND_ENDS = """\
  chain stranger {
    ip daddr @barred
    # Of a task that nobody has told this node of yet, the next attempt may be let in: it is not told to give up.
    ip saddr @known goto prohibited
    drop
  }"""
