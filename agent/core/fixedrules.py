"""The fixed part of the node's nftables table: its chains, and the sets and maps that they ask (see `firewall`).

One rule: what depends on services or tasks is asked of a set or a map, so that this text changes with the node's own
network alone. Every rule about an address stands once for each family of addresses that the node has.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.core import firewall, overlay
from agent.core.firewall import FAMILY, TABLE
from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb

LINKS = "orch-*"
DNS_PORT = 53
QUESTIONS = "limit rate over 20000/second burst 20000 packets"
"""Of each asker. The agent reads and drops some hundred thousand a second."""

ABOUT_DNS = {V4: f"@th,240,16 {DNS_PORT}", V6: f"@th,400,16 {DNS_PORT}"}
"""An ICMP error has 8 bytes of its own, then the packet's header with 20 or 40, then 2 for the port it came from."""

TUNNELLED = f"udp dport {overlay.PORT} @th,96,24 {overlay.VNI:#x}"
"""A packet of the tunnel between nodes: its network identifier comes after 8 bytes of UDP and 4 of VXLAN."""


def table(network: dpb.NodeNetwork, trusted: Sequence[str] = (), *, outer: Family = V4) -> str:
    """The fixed part. Whatever the table held before is replaced in the same transaction.

    `trusted`: ranges outside the cluster that reach tasks by their own addresses. `outer`: the family by which nodes
    reach each other.
    """
    sides = _sides(network, trusted)
    return f"""\
table {FAMILY} {TABLE}
delete table {FAMILY} {TABLE}
table {FAMILY} {TABLE} {{
{_sets(sides, outer)}
{_nat(sides)}
{_filter(sides, outer)}
{_inbound_ends(sides)}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """What the table says of one family of addresses, in nft's words."""

    family: Family
    own: str  # the node's address among its tasks
    cluster: str
    here: str
    services: str
    trusted: Sequence[str]
    guard: str  # before a rule that would hold for both families

    @property
    def ip(self) -> str:
        return f"ip{self.family.suffix}"

    @property
    def icmp(self) -> str:
        return "icmp" if self.family is V4 else "icmpv6"

    @property
    def s(self) -> str:
        """What the names of its sets end in."""
        return self.family.suffix

    @property
    def through_port(self) -> str:
        """Of what is translated: it came through a published port."""
        return f"ct original {self.ip} daddr != {self.services}" if self.services else self.guard.strip()

    def to_services(self, rule: str) -> str:
        return rule if self.services else ""


def _sides(network: dpb.NodeNetwork, trusted: Sequence[str]) -> tuple[_Side, ...]:
    found = families.told(network, "subnet")
    return tuple(
        _Side(
            family=family,
            own=overlay.gateway(family.get(network, "subnet")),
            cluster=family.get(network, "cluster_range"),
            here=family.get(network, "subnet"),
            services=family.get(network, "service_range"),
            trusted=[text for text in trusted if families.of(text) is family],
            guard=f"meta nfproto ipv{family.version} " if len(found) > 1 else "",
        )
        for family in found
    )


def _each(sides: Iterable[_Side], rule: Callable[[_Side], str]) -> str:
    """A rule for each family; empty ones are left out."""
    return "\n    ".join(filter(None, map(rule, sides)))


def _sets(sides: Iterable[_Side], outer: Family) -> str:
    """`outer`: the family that nodes reach each other by."""
    return "\n".join((*map(_sets_of, sides), f"  set nodes{outer.suffix} {{ type ipv{outer.version}_addr; }}", _SETS))


def _sets_of(side: _Side) -> str:
    kind, s, ip = firewall.address_type(side.family), side.s, side.ip
    return f"""\
  map services{s} {{ type {kind} . inet_proto . inet_service : verdict; }}
  map endpoints{s} {{ typeof {ip} daddr . numgen random mod 65536 : {ip} daddr; }}
  map published{s} {{ type inet_proto . inet_service : verdict; }}
  map outside-tcp{s} {{ typeof tcp dport . numgen random mod 65536 : {ip} daddr . tcp dport; }}
  map outside-udp{s} {{ typeof udp dport . numgen random mod 65536 : {ip} daddr . udp dport; }}
  set closed{s} {{ type inet_proto . inet_service; counter; }}
  set addresses{s} {{ type {kind}; }}
  set requests{s} {{ type {kind}; counter; }}
  set refusals{s} {{ type {kind}; counter; }}
  set traffic{s} {{ type {kind}; counter; }}
  map tasks{s} {{ type {kind} : verdict; }}
  set barred{s} {{ type {kind}; counter; }}
  set hairpin{s} {{ type {kind} . {kind}; }}
  set internal{s} {{ type {kind}; }}
  set known{s} {{ type {kind}; }}
  set askers{s} {{ type {kind}; size 4096; flags dynamic, timeout; timeout 10s; }}
  set gateways{s} {{ type {kind}; }}"""


_SETS = """\
  set published-requests { type inet_proto . inet_service; counter; }
  set published-traffic-tcp { type inet_service; counter; }
  set published-traffic-udp { type inet_service; counter; }"""


def _nat(sides: Sequence[_Side]) -> str:
    to_virtual = _each(sides, lambda side: side.to_services(f"{side.ip} daddr {side.services} goto virtual"))
    return f"""\
  chain virtual {{
    {_each(sides, _answer_pings)}
    {_each(sides, lambda side: f"{side.ip} daddr @requests{side.s}")}
    {_each(sides, lambda side: f"{side.ip} daddr . meta l4proto . th dport vmap @services{side.s}")}
  }}
  chain published_ports {{
    # The node's answers to its tasks' questions for names come from here, whatever is published.
    {_each(sides, lambda side: f"{side.ip} daddr {side.own} th dport {DNS_PORT} return")}
    meta l4proto . th dport @published-requests
    {_each(sides, lambda side: f"{side.guard}meta l4proto . th dport vmap @published{side.s}")}
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
    {_each(sides, _leaving)}
  }}"""


def _leaving(side: _Side) -> str:
    """What the node puts its own address on."""
    ip, own, cluster, here = side.ip, side.own, side.cluster, side.here
    loopback = f"ip saddr 127.0.0.0/8 ip daddr {cluster} snat ip to {own}" if side.family is V4 else ""
    rules = f"""\
# A task that was led to itself would answer itself, untranslated.
{ip} saddr . {ip} daddr @hairpin{side.s} snat {ip} to {own}
{loopback}
# The answer of a task of another node has to come back this way.
{ip} saddr != {cluster} {ip} daddr {cluster} {ip} daddr != {here} snat {ip} to {own}
ct status dnat {side.through_port} {ip} daddr {cluster} {ip} daddr != {here} snat {ip} to {own}
{ip} saddr {here} {ip} daddr != {cluster} masquerade"""
    return "\n    ".join(filter(None, rules.splitlines()))


def _refusals(sides: Sequence[_Side]) -> str:
    """One for both families has words of its own, `icmpx`."""
    icmp = sides[0].icmp if len(sides) == 1 else "icmpx"
    return f"""\
  chain refused {{
    {_each(sides, lambda side: f"{side.ip} daddr @refusals{side.s}")}
    meta l4proto tcp reject with tcp reset
    reject with {icmp} type port-unreachable
  }}
  chain prohibited {{
    reject with {icmp} type admin-prohibited
  }}"""


def _filter(sides: Sequence[_Side], outer: Family) -> str:
    strange = [family for family in families.FAMILIES if family not in {side.family for side in sides}]
    drop_strange = "\n    ".join(f'iifname "{LINKS}" meta nfproto ipv{family.version} drop' for family in strange)
    send_strange = "\n    ".join(f'oifname "{LINKS}" meta nfproto ipv{family.version} drop' for family in strange)
    drop_late = _each(sides, lambda side: f"ct state invalid {side.ip} saddr {side.cluster} drop")
    virtual = _each(sides, _untranslated)
    return f"""\
{_refusals(sides)}
{_sources(sides)}  chain input {{
    type filter hook input priority filter; policy accept;
    # What is inside would have passed every rule of the node that it claims to come from.
    {TUNNELLED} ip{outer.suffix} saddr != @nodes{outer.suffix} drop
    {_each(sides, _from_loopback)}
    {drop_strange}
    {drop_late}
    ct state invalid fib daddr type local meta l4proto . th dport @published-requests drop
    # Questions wait in one line, which nobody may fill: the agent has its own, narrower limit for each task.
    {_each(sides, _not_too_many)}
    {_each(sides, lambda side: f"ct state new {side.ip} daddr {side.own} th dport {DNS_PORT} accept")}
    {_each(sides, _refuse_closed)}
    {_each(sides, _keep_inside)}
  }}
  chain refuse_own {{
    type filter hook output priority filter; policy accept;
    # While the agent is started again nobody listens there. Silence makes whoever asks ask again, a refusal give up.
    {_each(sides, _silent_about_names)}
    {virtual}
  }}
{_forward(sides, drop_late, drop_strange, send_strange)}
  chain inbound {{
    {_each(sides, lambda side: f"ct status dnat {side.through_port} accept")}
    {_each(sides, lambda side: f"{side.ip} saddr @gateways{side.s} accept")}
    {_each(sides, _let_in)}
    {_each(sides, lambda side: f"{side.ip} saddr != {side.cluster} goto prohibited")}
    {_each(sides, lambda side: f"{side.ip} daddr vmap @tasks{side.s}")}
    goto prohibited
  }}"""


def _forward(sides: Sequence[_Side], drop_late: str, drop_strange: str, send_strange: str) -> str:
    return f"""\
{_counted(sides)}  chain forward {{
    type filter hook forward priority filter; policy accept;
    # A task's own packets leave with the node's address: other nodes would take this for a tunnel's.
    iifname "{LINKS}" {TUNNELLED} drop
    ct status dnat jump counted
    ct state established,related accept
    {drop_late}
    {_each(sides, lambda side: side.to_services(f"ct state invalid {side.ip} daddr {side.services} drop"))}
    {drop_strange}
    {send_strange}
    {_each(sides, lambda side: side.to_services(f"{side.ip} daddr {side.services} goto refused"))}
    {_each(sides, lambda side: f"{side.ip} saddr @internal{side.s} {side.ip} daddr != {side.cluster} goto prohibited")}
    {_each(sides, lambda side: f"{side.ip} daddr {side.here} goto inbound")}
    # To tasks of other nodes: they know whom they let in. Nobody outside is led there but by a published port.
    {_each(sides, lambda side: f"{side.ip} daddr {side.cluster} ct status dnat accept")}
    {_each(sides, _let_in)}
    {_each(sides, lambda side: f"{side.ip} daddr {side.cluster} {side.ip} saddr != {side.cluster} goto prohibited")}
  }}"""


def _counted(sides: Sequence[_Side]) -> str:
    """Nearly all packets come this way, and to count one costs as much as its translation: one lookup, and no more."""
    return f"""\
  chain counted {{
    {_each(sides, lambda side: f"ct original {side.ip} daddr @traffic{side.s} return")}
    meta l4proto tcp ct original proto-dst @published-traffic-tcp return
    meta l4proto udp ct original proto-dst @published-traffic-udp
  }}
"""


def _sources(sides: Sequence[_Side]) -> str:
    """For IPv4 the kernel has rp_filter. A task's link leads to its address alone, so any other came from nowhere."""
    if all(side.family is V4 for side in sides):
        return ""
    return f"""\
  chain sources {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{LINKS}" iifname != "{overlay.DEVICE}" meta nfproto ipv6 fib saddr . iif oif missing drop
  }}
"""


def _answer_pings(side: _Side) -> str:
    return f"{side.icmp} type echo-request {side.ip} daddr @addresses{side.s} dnat {side.ip} to {side.own}"


def _not_too_many(side: _Side) -> str:
    asker = f"update @askers{side.s} {{ {side.ip} saddr {QUESTIONS} }}"
    return f"{side.ip} daddr {side.own} udp dport {DNS_PORT} {asker} counter drop"


def _refuse_closed(side: _Side) -> str:
    return f"{side.guard}ct state new fib daddr type local meta l4proto . th dport @closed{side.s} goto refused"


def _keep_inside(side: _Side) -> str:
    return f"ct state new {side.ip} saddr @internal{side.s} {side.ip} daddr != {side.own} goto prohibited"


def _from_loopback(side: _Side) -> str:
    if side.family is not V4:
        return ""
    return """\
# route_localnet makes the node's 127.0.0.1 reachable from outside; only answers may come that way.
    iifname != "lo" ip daddr 127.0.0.0/8 ct state != { established, related } drop"""


def _silent_about_names(side: _Side) -> str:
    icmp = side.icmp
    which = f"{icmp} type destination-unreachable {icmp} code port-unreachable"
    return f"{side.ip} saddr {side.own} {which} {ABOUT_DNS[side.family]} drop"


def _untranslated(side: _Side) -> str:
    drop = f"ct state invalid {side.ip} daddr {side.services} drop"
    return side.to_services(f"{drop}\n    {side.ip} daddr {side.services} goto refused")


def _let_in(side: _Side) -> str:
    return f"{side.ip} saddr {{ {', '.join(side.trusted)} }} accept" if side.trusted else ""


def _inbound_ends(sides: Sequence[_Side]) -> str:
    return f"""\
  chain stranger {{
    {_each(sides, lambda side: f"{side.ip} daddr @barred{side.s}")}
    # Of a task that nobody has told this node of yet, the next attempt may be let in: it is not told to give up.
    {_each(sides, lambda side: f"{side.ip} saddr @known{side.s} goto prohibited")}
    drop
  }}"""
