"""The node's nftables rules, as the text that `nft -f -` takes in one transaction.

One table of ours, `inet orch`, and one map in it from (protocol, port of the node) to (address, port of a task): a
task that comes or goes is one element of the map, and the rules never change. In nft's own language, because
nftables 1.0.6 crashes on the JSON form of a map whose values have two parts.

    from outside    prerouting: the map's target instead of the node's own address
    from the node   output: the same; a packet from 127.0.0.1 leaves with the bridge's address (route_localnet)
    from a task     prerouting; a task that reaches a task of the same bridge through the node's port is masqueraded,
                    because the answer would else go straight over the bridge, past the translation
    to elsewhere    whatever leaves the cluster's range is masqueraded
"""

from collections.abc import Iterable

from agent.core.network import Attachment
from protos.orch.v1 import objects_pb2 as pb

TABLE = "orch"
_PROTOCOLS = {pb.PROTOCOL_TCP: "tcp", pb.PROTOCOL_UDP: "udp"}


def ruleset(*, subnet: str, cluster_range: str, attached: Iterable[Attachment]) -> str:
    """The whole table. Whatever it held before is replaced in the same transaction."""
    elements = ", ".join(text for attachment in attached for text in _elements(attachment))
    return f"""\
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  map published {{
    type inet_proto . inet_service : ipv4_addr . inet_service
    {f"elements = {{ {elements} }}" if elements else ""}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local dnat ip to meta l4proto . th dport map @published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to meta l4proto . th dport map @published
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname "orch-*" masquerade
    ip saddr {subnet} ip daddr != {cluster_range} masquerade
  }}
  chain input {{
    # route_localnet makes the node's 127.0.0.1 reachable from outside; only answers may come that way.
    type filter hook input priority filter; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 ct state new drop
  }}
}}
"""


def publish(attachment: Attachment) -> str:
    """Add a task's ports; empty when it publishes none."""
    elements = ", ".join(_elements(attachment))
    return f"add element inet {TABLE} published {{ {elements} }}\n" if elements else ""


def withdraw(attachment: Attachment) -> str:
    """Take a task's ports away; empty when it publishes none. Fails as a whole when one of them is not there."""
    keys = ", ".join(f"{_PROTOCOLS[port.protocol]} . {port.published}" for port in attachment.ports)
    return f"delete element inet {TABLE} published {{ {keys} }}\n" if keys else ""


def _elements(attachment: Attachment) -> list[str]:
    return [
        f"{_PROTOCOLS[port.protocol]} . {port.published} : {attachment.address} . {port.target}"
        for port in attachment.ports
    ]
