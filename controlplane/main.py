"""Starts one instance of the control plane: arguments, log, signals, and the clock and chance of the real world.

Exit codes: 0 after SIGTERM or SIGINT, 1 when it cannot go on, 2 for wrong arguments.
"""

import argparse
import asyncio
import contextlib
import fcntl
import random
import resource
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import structlog

from controlplane import arguments, rpc, server
from controlplane.core import scheduler
from controlplane.instance import Identity, Instance
from controlplane.leader import World
from controlplane.store import errors as store_errors
from controlplane.store.api import Store
from controlplane.store.etcd import EtcdStore
from controlplane.store.measured import Measured
from controlplane.trust import restoring, storeplace
from controlplane.trust.door import CannotOpen
from controlplane.trust.forgetting import Forgetting
from controlplane.trust.memberkeeper import MemberKeeper
from controlplane.trust.registry import NotFounded
from controlplane.trust.standing import Standing, standing, store_credentials
from controlplane.trust.storeexchange import StoreExchange
from images import errors as image_errors
from protos import release, running, supervision
from telemetry import logs, page
from trust.folder import Folder, NotTrusted

MAX_DESCRIPTORS = 65_536
SUFFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
SUFFIX_LENGTH = 8
RETRY_S = 1.0

_log = structlog.get_logger()


class CannotStart(Exception):  # noqa: N818 - named after what happened
    """One line that says what to do about it."""


_EXPECTED = (
    CannotOpen,
    CannotStart,
    NotFounded,
    NotTrusted,
    rpc.CannotListen,
    page.CannotServe,
    image_errors.ImageError,
    store_errors.Fatal,
)


def main(given: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = arguments.parse(given)
    logs.configure(options.log_level, options.log_format, program="orch-controlplane", instance=options.name)
    _allow_descriptors()
    try:
        with _own_folder(options.state):
            asyncio.run(_run(options, supervision.Supervisor()))
    except Exception as error:
        reason = running.leaf(error)
        if not isinstance(reason, _EXPECTED):
            raise
        _log.error("the control plane cannot run", why=str(reason))
        return 1
    return 0


async def _run(options: argparse.Namespace, supervisor: supervision.Supervisor) -> None:
    """Serves until a signal asks it to end."""
    stop = _stop_signal()
    folder = Folder(options.trust) if options.trust is not None else None
    place = _etcd(options.etcd, folder)
    etcd = EtcdStore(
        place.addresses, credentials=_store_credentials(place, folder), home=place.home, writer=options.name
    )
    store = Measured(etcd)
    identity = Identity(name=options.name, address=options.advertise)
    instance = Instance(store, identity, _world(options), new_id=new_id, lease_s=options.leader_lease)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        if folder is not None:
            await _restored(folder, etcd)
        trusted, door_ports = (
            await stack.enter_async_context(_standing(options, folder, store, etcd))
            if folder is not None
            else (None, ())
        )
        edge = _edge(options, trusted, door_ports, etcd)
        await stack.enter_async_context(server.serving(edge, instance, store))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        _log.info("control plane serves", name=options.name, listen=options.listen, etcd=place.addresses)
        work = [group.create_task(instance.run()), group.create_task(supervisor.run(f"serves as {options.name}"))]
        if trusted is not None:
            instance.chores.append(Forgetting(trusted.registry, now_ms).run)
            keeper = MemberKeeper(etcd, trusted.folder, lambda: instance.leader().here)
            stack.enter_context(trusted.registry.listening(keeper.wake))
            trusted.on_store_renewed = keeper.renewed
            exchange = StoreExchange(trusted, etcd)
            stack.enter_context(trusted.registry.listening(exchange.wake))
            work += [group.create_task(keeper.run()), group.create_task(exchange.run())]
        await stop.wait()
        supervisor.stopping()
        _log.info("control plane stops", name=options.name)
        for task in work:
            task.cancel()


async def _restored(folder: Folder, store: EtcdStore) -> None:
    """Nobody is served before everything is there that was left to be restored. Raises NotTrusted."""
    while True:
        try:
            await restoring.finish(folder, store)
        except store_errors.Temporary as error:
            _log.warning("the backup is not in the store yet", why=str(error))
            await asyncio.sleep(RETRY_S)
        else:
            return


def _allow_descriptors() -> None:
    """One for each connection, and some for files: the usual 1024 would be the limit of the cluster."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _edge(
    options: argparse.Namespace, trusted: Standing | None, door_ports: Sequence[int], etcd: EtcdStore
) -> server.Edge:
    return server.Edge(
        name=options.name,
        version=release.VERSION,
        listen=options.listen,
        images=options.state / "images",
        advertise=options.advertise,
        images_limit_bytes=options.images_limit,
        registries=options.registries,
        registry_credentials=options.registry_credentials,
        now_ms=now_ms,
        new_id=new_id,
        strategy=scheduler.Strategy(options.placement),
        condition=etcd.condition,
        store_members=etcd.members,
        metrics=[arguments.split(address) for address in options.metrics],
        trust=trusted,
        allowed=options.limits,
        door_ports=door_ports,
    )


@contextlib.asynccontextmanager
async def _standing(
    options: argparse.Namespace, folder: Folder, store: Store, etcd: EtcdStore
) -> AsyncIterator[tuple[Standing, Sequence[int]]]:
    """The instance's standing in its cluster, and the ports of its door, which is open inside the block."""
    chance = random.Random(secrets.randbits(64))  # noqa: S311 - a moment in weeks to come
    audit = options.state / "audit.log"
    async with (
        standing(
            folder, store, members=etcd.members, audit=audit, now_ms=now_ms, chance=chance, address=options.advertise
        ) as trusted,
        trusted.door.serving(options.door) as ports,
    ):
        yield trusted, ports


def _etcd(said: arguments.Endpoints | None, folder: Folder | None) -> arguments.Endpoints:
    """Where the store is: what was said, else what the instance's folder knows. Raises CannotStart, NotTrusted."""
    if said is not None:
        return said
    if folder is None or not storeplace.known(folder):
        raise CannotStart(
            "nothing says where etcd is: give --etcd, or a --trust that a cluster was founded or joined in"
        )
    place = storeplace.load(folder)
    home = place.member.endpoint if place.member is not None else ""
    return arguments.Endpoints(addresses=tuple(place.endpoints), secure=True, home=home)


def _store_credentials(etcd: arguments.Endpoints, folder: Folder | None) -> grpc.ChannelCredentials | None:
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
        ranges=arguments.ranges_of(options),
        network_mode=arguments.NETWORK_MODES[options.network_mode],
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
