"""The ranges of addresses that a cluster is started with: what people may give, and what is wrong with the rest.

The rule: a mistake here would be found by packets that vanish, on every node, much later. So whatever does not fit is
refused at the start, with the words that were given.

    --cluster-range 10.112.0.0/16                   IPv4 alone
    --cluster-range 10.112.0.0/16,fd00:112::/48     both families
    --cluster-range fd00:112::/48                   IPv6 alone
"""

import ipaddress
from collections.abc import Mapping
from typing import Final

from protos import families
from protos.families import V4, V6, Family, Network

DEFAULT_SUBNET_PREFIXES: Final[Mapping[Family, int]] = {V4: 24, V6: 64}
"""A /24 has room for 253 tasks, a /64 for more than anybody has."""
LONGEST_SUBNET_PREFIXES: Final[Mapping[Family, int]] = {V4: 30, V6: 126}
LONGEST_SERVICE_PREFIXES: Final[Mapping[Family, int]] = {V4: 29, V6: 125}

Parsed = Mapping[Family, Network]


def parse(text: str) -> Parsed:
    """One range, or one of each family with a comma between them. Raises ValueError."""
    found: dict[Family, Network] = {}
    for part in text.split(","):
        network = _network(part.strip())
        family = families.of(str(network))
        if family in found:
            raise ValueError(f"{text!r} has two ranges of {family.label}; give one, or one of each family")
        found[family] = network
    return {family: found[family] for family in families.FAMILIES if family in found}


def services(text: str) -> Parsed:
    """Ranges for services. Raises ValueError."""
    parsed = parse(text)
    for family, network in parsed.items():
        longest = LONGEST_SERVICE_PREFIXES[family]
        if network.prefixlen > longest:
            raise ValueError(f"{network} is too small: a range of services is a /{longest} or more")
    return parsed


def subnet_prefix(text: str, family: Family) -> int:
    """How long the prefix of a node's subnet is. Raises ValueError."""
    longest = LONGEST_SUBNET_PREFIXES[family]
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= longest:
        raise ValueError(f"{text!r} is not the prefix of a subnet of {family.label}, a number from 1 to {longest}")
    return int(text)


def problem(cluster: Parsed, service: Parsed, subnet_prefixes: Mapping[Family, int]) -> str | None:
    """What does not fit together; None when all does."""
    for family, network in cluster.items():
        prefix = subnet_prefixes[family]
        if network.prefixlen >= prefix:
            return f"--cluster-range {network} is too small: each node gets a /{prefix} of it"
    for option, one, other_option, other in (
        ("--service-range", service, "--cluster-range", cluster),
        ("--cluster-range", cluster, "--service-range", service),
    ):
        missing = [family for family in other if family not in one]
        if missing:
            return (
                f"{option} {_shown(one)} has no range of {missing[0].label}, and {other_option} {_shown(other)} has; "
                "tasks and services need the same families"
            )
    for family, network in cluster.items():
        if families.overlapping([network, service[family]]):
            return (
                f"--service-range {service[family]} overlaps --cluster-range {network}; "
                "tasks and services need ranges apart"
            )
    return None


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a range of addresses: {error}") from error
    if network.is_multicast or network.is_loopback or network.is_link_local:
        raise ValueError(f"{text} is not a range that can be given to tasks: it has a meaning of its own")
    return network


def _shown(parsed: Parsed) -> str:
    return ",".join(map(str, parsed.values()))
