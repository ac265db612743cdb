"""Starts one instance of the control plane: arguments, log, signals, and the clock and chance of the real world.

Exit codes: 0 after SIGTERM or SIGINT, 1 when it cannot go on, 2 for wrong arguments.
"""

import argparse
import asyncio
import contextlib
import fcntl
import functools
import importlib.metadata
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import structlog

from controlplane import logs, rpc, server
from controlplane.controllers.nodes import Ranges
from controlplane.core import ranges, scheduler
from controlplane.images import room
from controlplane.instance import Identity, Instance
from controlplane.leader import World
from controlplane.store import errors as store_errors
from controlplane.store.etcd import EtcdStore
from controlplane.trust.door import CannotOpen
from controlplane.trust.registry import NotFounded
from controlplane.trust.standing import Standing, standing, store_credentials
from images import errors as image_errors
from images.registry import options as registry_options
from protos import arguments, running
from protos.families import FAMILIES, V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as wire
from trust.folder import Folder, NotTrusted

MOST_MOVES = 10_000
NETWORK_MODES = {
    "auto": wire.NETWORK_MODE_AUTO,
    "routes": wire.NETWORK_MODE_ROUTES,
    "vxlan": wire.NETWORK_MODE_VXLAN,
}

SMALLEST_MTU, LARGEST_MTU = 576, 65_535

SUFFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
SUFFIX_LENGTH = 8

_log = structlog.get_logger()


class CannotStart(Exception):  # noqa: N818 - named after what happened
    """One line that says what to do about it."""


_EXPECTED = (
    CannotOpen,
    CannotStart,
    NotFounded,
    NotTrusted,
    rpc.CannotListen,
    image_errors.ImageError,
    store_errors.Fatal,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """etcd's members, and whether they are spoken to over TLS."""

    addresses: tuple[str, ...]
    secure: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_ranges(parser, options)
    logs.configure(options.log_level)
    try:
        with _own_folder(options.state):
            asyncio.run(_run(options))
    except Exception as error:
        reason = running.leaf(error)
        if not isinstance(reason, _EXPECTED):
            raise
        _log.error("the control plane cannot run", why=str(reason))
        return 1
    return 0


async def _run(options: argparse.Namespace) -> None:
    """Serves until a signal asks it to end."""
    stop = _stop_signal()
    folder = Folder(options.trust) if options.trust is not None else None
    store = EtcdStore(options.etcd.addresses, credentials=_store_credentials(options.etcd, folder))
    identity = Identity(name=options.name, address=options.advertise)
    instance = Instance(store, identity, _world(options), new_id=new_id)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        trusted = await stack.enter_async_context(_standing(options, folder, store)) if folder is not None else None
        edge = _edge(options, trusted)
        await stack.enter_async_context(server.serving(edge, instance, store))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        _log.info("control plane serves", name=options.name, listen=options.listen, etcd=options.etcd.addresses)
        work = group.create_task(instance.run())
        await stop.wait()
        _log.info("control plane stops", name=options.name)
        work.cancel()


def _edge(options: argparse.Namespace, trusted: Standing | None) -> server.Edge:
    return server.Edge(
        name=options.name,
        version=importlib.metadata.version("orch"),
        listen=options.listen,
        images=options.state / "images",
        advertise=options.advertise,
        images_limit_bytes=options.images_limit,
        registries=options.registries,
        registry_credentials=options.registry_credentials,
        now_ms=now_ms,
        new_id=new_id,
        strategy=scheduler.Strategy(options.placement),
        trust=trusted,
    )


@contextlib.asynccontextmanager
async def _standing(options: argparse.Namespace, folder: Folder, store: EtcdStore) -> AsyncIterator[Standing]:
    """The instance's standing in its cluster, with its door open inside the block."""
    chance = random.Random(secrets.randbits(64))  # noqa: S311 - a moment in weeks to come
    audit = options.state / "audit.log"
    async with (
        standing(folder, store, audit=audit, now_ms=now_ms, chance=chance) as trusted,
        trusted.door.serving(options.door),
    ):
        yield trusted


def _store_credentials(etcd: "Endpoints", folder: Folder | None) -> grpc.ChannelCredentials | None:
    if not etcd.secure:
        return None
    if folder is None:
        raise CannotStart("an etcd with https wants a certificate; give its folder with --trust")
    return store_credentials(folder)


def _stop_signal() -> asyncio.Event:
    """Set once the process is asked to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


# Clock and chance ---------------------------------------------------------------------------------------------------


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """Twenty hexadecimal digits that nobody can guess and that do not come twice."""
    return secrets.token_hex(10)


def _world(options: argparse.Namespace) -> World:
    return World(
        now_ms=now_ms,
        random=random.Random(secrets.randbits(64)),  # noqa: S311 - jitter
        suffixes=_suffixes(),
        ranges=_ranges(options),
        network_mode=NETWORK_MODES[options.network_mode],
        network_mtu=options.network_mtu,
        strategy=scheduler.Strategy(options.placement),
        rebalance_moves_per_minute=options.rebalance_moves_per_minute,
    )


def _suffixes() -> Iterator[str]:
    while True:
        yield "".join(secrets.choice(SUFFIX_ALPHABET) for _ in range(SUFFIX_LENGTH))


# Folder -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """Makes the state folder, and keeps others out of it for the length of the block."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise CannotStart(
            f"the state folder {folder} cannot be used: {error.strerror}; give another --state"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"another control plane uses the state folder {folder}; give each instance its own --state"
            raise CannotStart(text) from None
        yield


# Arguments ----------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orch-controlplane", description="One instance of Orch's control plane.")
    parser.add_argument("--name", required=True, help="this instance's name, unlike any other's")
    parser.add_argument(
        "--listen",
        required=True,
        action="append",
        type=_address,
        metavar="HOST:PORT",
        help="may be given several times",
    )
    parser.add_argument(
        "--advertise", required=True, type=_address, metavar="HOST:PORT", help="where agents and people reach it"
    )
    parser.add_argument(
        "--etcd", required=True, type=_endpoints, metavar="https://HOST:PORT[,…]", help="etcd's members"
    )
    parser.add_argument("--state", required=True, type=Path, metavar="DIR", help="a folder of its own")
    parser.add_argument(
        "--trust", type=Path, metavar="DIR", help="the folder that `orchctl cluster init` or `join` has filled"
    )
    parser.add_argument(
        "--door",
        action="append",
        default=[],
        type=_address,
        metavar="HOST:PORT",
        help="where machines and people join with a token; may be given several times",
    )
    registry_options.add(parser, what_for="to ask what their images mean")
    parser.add_argument(
        "--images-limit",
        default=room.DEFAULT_LIMIT_BYTES,
        type=arguments.size,
        metavar="BYTES",
        help="what the images of the cluster may take on this instance's disk, such as 20Gi (default: 64Gi)",
    )
    _add_network(parser)
    _add_placement(parser)
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


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


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 10.0.0.1:7400")
    return text


def _endpoints(text: str) -> Endpoints:
    """`https://10.0.0.1:2379,https://10.0.0.2:2379` → the addresses, and that they are secure."""
    parts = [urlsplit(part) for part in text.split(",")]
    schemes = {part.scheme for part in parts}
    if len(schemes) != 1 or not schemes <= {"http", "https"} or any(part.path not in {"", "/"} for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not https://HOST:PORT[,https://HOST:PORT…]")
    return Endpoints(addresses=tuple(_address(part.netloc) for part in parts), secure=schemes == {"https"})


def _range(text: str) -> ranges.Parsed:
    return arguments.checked(ranges.parse, text)


def _services_range(text: str) -> ranges.Parsed:
    return arguments.checked(ranges.services, text)


def _subnet_prefix(text: str, family: Family) -> int:
    return arguments.checked(lambda given: ranges.subnet_prefix(given, family), text)


def _mtu(text: str) -> int:
    """What every IPv4 host takes is 576 (RFC 791); what is smaller is a mistake."""
    if not text.isascii() or not text.isdigit() or not (text == "0" or SMALLEST_MTU <= int(text) <= LARGEST_MTU):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a packet's size in bytes from {SMALLEST_MTU} to {LARGEST_MTU}, or 0"
        )
    return int(text)


def _check_ranges(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """An address has one meaning."""
    prefixes = {V4: options.subnet_prefix, V6: options.subnet_prefix6}
    problem = ranges.problem(options.cluster_range, options.service_range, prefixes)
    if problem is not None:
        parser.error(problem)


def _ranges(options: argparse.Namespace) -> Ranges:
    cluster, services = options.cluster_range, options.service_range
    return Ranges(
        cluster=str(cluster.get(V4, "")),
        subnet_bits=options.subnet_prefix,
        services=str(services.get(V4, "")),
        cluster6=str(cluster.get(V6, "")),
        subnet_bits6=options.subnet_prefix6,
        services6=str(services.get(V6, "")),
    )
