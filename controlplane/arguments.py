"""The command line of an instance of the control plane. Each argument is checked where it is read."""

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from controlplane.controllers.nodes import Ranges
from controlplane.core import limits, ranges, scheduler
from controlplane.images import room
from controlplane.store import election
from images.registry import options as registry_options
from protos import arguments as reading
from protos.families import FAMILIES, V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as wire
from telemetry import formats

METRICS_PORT = 7404
"""Where Prometheus reads metrics, usually. A node on the same machine has the one before."""
MOST_MOVES = 10_000
SHORTEST_LEASE_S, LONGEST_LEASE_S = 2, 60
NETWORK_MODES = {
    "auto": wire.NETWORK_MODE_AUTO,
    "routes": wire.NETWORK_MODE_ROUTES,
    "vxlan": wire.NETWORK_MODE_VXLAN,
}

_SOCKET = "unix:"
SMALLEST_MTU, LARGEST_MTU = 576, 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """etcd's members, and whether they are spoken to over TLS. `home`: the one beside this instance."""

    addresses: tuple[str, ...]
    secure: bool
    home: str = ""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. Ends the process with 2 when they make no sense."""
    reader = parser()
    options = reader.parse_args(arguments)
    _check_ranges(reader, options)
    _check_secrecy(reader, options)
    options.limits = _limits(reader, options.limit)
    return options


def parser() -> argparse.ArgumentParser:
    """Everything that an instance is told."""
    made = argparse.ArgumentParser(
        prog="orch-controlplane", description="One instance of Orch's control plane.", allow_abbrev=False
    )
    made.add_argument(
        "--config", metavar="FILE", help="these options, a key each; what is said here wins over what is said there"
    )
    made.add_argument("--name", required=True, help="this instance's name, unlike any other's")
    made.add_argument(
        "--listen",
        required=True,
        action="append",
        type=_place,
        metavar="HOST:PORT",
        help="where people, agents and the other instances are served; may be given several times; without --trust "
        "sockets of this machine only, such as unix:/run/orch.sock",
    )
    made.add_argument(
        "--advertise", required=True, type=_place, metavar="HOST:PORT", help="where agents and people reach it"
    )
    made.add_argument(
        "--etcd",
        type=_endpoints,
        metavar="https://HOST:PORT[,…]",
        help="etcd's members (default: those that the folder of --trust knows)",
    )
    made.add_argument("--state", required=True, type=Path, metavar="DIR", help="a folder of its own")
    made.add_argument(
        "--trust", type=Path, metavar="DIR", help="the folder that `orchctl cluster init` or `join` has filled"
    )
    made.add_argument(
        "--door",
        action="append",
        default=[],
        type=_address,
        metavar="HOST:PORT",
        help="where machines and people join with a token; may be given several times",
    )
    registry_options.add(made, what_for="to ask what their images mean")
    made.add_argument(
        "--images-limit",
        default=room.DEFAULT_LIMIT_BYTES,
        type=reading.size,
        metavar="BYTES",
        help="what the images of the cluster may take on this instance's disk, such as 20Gi (default: 64Gi)",
    )
    _add_leading(made)
    _add_network(made)
    _add_placement(made)
    _add_limits(made)
    _add_telling(made)
    return made


def _add_leading(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--leader-lease",
        default=f"{election.TTL_S}s",
        type=_lease,
        metavar="TIME",
        help="how long nobody leads when the leader is lost without a word; longer for a machine or a store that is so "
        f"slow that leaders lose their lease although they work (from {SHORTEST_LEASE_S}s to {LONGEST_LEASE_S}s; "
        f"default: {election.TTL_S}s)",
    )


def _add_limits(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="WHO.WHAT=NUMBER",
        help="what one person, node, controlplane or stranger may ask for (burst, per_second, calls, streams, "
        "request_bytes), or all together (calls, streams; connections from one address), such as person.streams=200; "
        "may be given several times",
    )


def _add_telling(made: argparse.ArgumentParser) -> None:
    """How it tells of itself."""
    made.add_argument(
        "--metrics",
        action="append",
        default=[],
        type=_address,
        metavar="HOST:PORT",
        help="where Prometheus reads metrics, with a certificate of the cluster; may be given several times",
    )
    made.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="from which level on it tells what happens (default: %(default)s)",
    )
    made.add_argument("--log-format", default="auto", choices=formats.FORMATS, help=formats.HELP)


def _add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--placement",
        default=scheduler.Strategy.SPREAD.value,
        choices=[one.value for one in scheduler.Strategy],
        help="what becomes of nodes that are as good as each other for a task: spread gives it to the emptiest, "
        "binpack to the fullest (default: %(default)s); the same for every instance",
    )
    parser.add_argument(
        "--rebalance-moves-per-minute",
        default=6,
        type=_moves,
        metavar="N",
        help="how many tasks are moved a minute so that services are spread again after nodes have come, or many tasks "
        "have gone; 0: none (default: %(default)s)",
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster-range",
        default="10.112.0.0/16",
        type=_range,
        metavar="RANGE[,RANGE]",
        help="where tasks get their addresses from, of IPv4, of IPv6, or of both (default: %(default)s)",
    )
    for family in FAMILIES:
        default = ranges.DEFAULT_SUBNET_PREFIXES[family]
        parser.add_argument(
            f"--subnet-prefix{family.suffix}",
            default=default,
            type=functools.partial(_subnet_prefix, family=family),
            metavar="BITS",
            help=f"each node gets a part of the {family.label} range, with a prefix so long (default: {default})",
        )
    parser.add_argument(
        "--service-range",
        default="10.201.0.0/16",
        type=_services_range,
        metavar="RANGE[,RANGE]",
        help="where services get their virtual addresses from, of the same families (default: %(default)s)",
    )
    parser.add_argument(
        "--network-mode",
        default="auto",
        choices=sorted(NETWORK_MODES),
        help="how nodes reach each other's tasks; auto: by routes where they share a segment (default: %(default)s)",
    )
    parser.add_argument(
        "--network-mtu",
        default=0,
        type=_mtu,
        metavar="BYTES",
        help="the largest packet of a task (default: each node works it out)",
    )


def _moves(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MOST_MOVES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MOST_MOVES}")
    return int(text)


def _lease(text: str) -> int:
    """etcd counts whole seconds."""
    lease_s = reading.seconds(text)
    if lease_s != int(lease_s) or not SHORTEST_LEASE_S <= lease_s <= LONGEST_LEASE_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of whole seconds from {SHORTEST_LEASE_S}s to {LONGEST_LEASE_S}s"
        )
    return int(lease_s)


def _place(text: str) -> str:
    """An address, or a socket of this machine."""
    return text if text.startswith(_SOCKET + "/") else _address(text)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 10.0.0.1:7400")
    return text


def split(address: str) -> tuple[str, int]:
    """`[fd00::1]:7404` → `fd00::1` and 7404."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _endpoints(text: str) -> Endpoints:
    """`https://10.0.0.1:2379,https://10.0.0.2:2379` → the addresses, and that they are secure."""
    parts = [urlsplit(part) for part in text.split(",")]
    schemes = {part.scheme for part in parts}
    if len(schemes) != 1 or not schemes <= {"http", "https"} or any(part.path not in {"", "/"} for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not https://HOST:PORT[,https://HOST:PORT…]")
    return Endpoints(addresses=tuple(_address(part.netloc) for part in parts), secure=schemes == {"https"})


def _range(text: str) -> ranges.Parsed:
    return reading.checked(ranges.parse, text)


def _services_range(text: str) -> ranges.Parsed:
    return reading.checked(ranges.services, text)


def _subnet_prefix(text: str, family: Family) -> int:
    return reading.checked(lambda given: ranges.subnet_prefix(given, family), text)


def _mtu(text: str) -> int:
    """What every IPv4 host takes is 576 (RFC 791); what is smaller is a mistake."""
    if not text.isascii() or not text.isdigit() or not (text == "0" or SMALLEST_MTU <= int(text) <= LARGEST_MTU):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a packet's size in bytes from {SMALLEST_MTU} to {LARGEST_MTU}, or 0"
        )
    return int(text)


def _check_secrecy(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What leaves this machine is spoken over TLS; in the clear there are only sockets of its own."""
    if options.trust is not None:
        if options.etcd is not None and not options.etcd.secure:
            parser.error("argument --etcd: http would be spoken to in the clear; with --trust it is https://HOST:PORT")
        return
    if options.door:
        parser.error("argument --door: who joins gets a certificate, which wants --trust")
    if options.metrics:
        parser.error("argument --metrics: whoever reads them shows a certificate, which wants --trust")
    for address in (*options.listen, options.advertise):
        if not address.startswith(_SOCKET):
            parser.error(
                f"{address} would be spoken to in the clear; give --trust, which `orchctl cluster init` or `join` "
                f"fills, or sockets of this machine, such as --listen {_SOCKET}/run/orch.sock"
            )


def _check_ranges(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """An address has one meaning."""
    prefixes = {V4: options.subnet_prefix, V6: options.subnet_prefix6}
    problem = ranges.problem(options.cluster_range, options.service_range, prefixes)
    if problem is not None:
        parser.error(problem)


def _limits(parser: argparse.ArgumentParser, changes: list[str]) -> limits.Limits:
    try:
        return limits.parse(changes)
    except ValueError as error:
        parser.error(f"argument --limit: {error}")


def ranges_of(options: argparse.Namespace) -> Ranges:
    """The ranges that addresses are given from."""
    cluster, services = options.cluster_range, options.service_range
    return Ranges(
        cluster=str(cluster.get(V4, "")),
        subnet_bits=options.subnet_prefix,
        services=str(services.get(V4, "")),
        cluster6=str(cluster.get(V6, "")),
        subnet_bits6=options.subnet_prefix6,
        services6=str(services.get(V6, "")),
    )
