"""The agent's wiring: command line, real adapters, and the tasks that make it live.

    python -m agent --name n1 --server 10.0.0.1:7000[,…] --address 10.0.0.11 --state DIR --cgroup-parent /orch/n1

One rule: SIGTERM and SIGINT end the agent and nothing else. Containers live on; the next agent adopts them. When that
means that it comes back, `agent.goodbye` tells.
"""

import argparse
import asyncio
import fcntl
import gc
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog

from agent import goodbye, imageoptions, node, servers, state_metrics
from agent import options as command_line
from agent.adapters import blobserver, whole
from agent.adapters.blobserver import BlobServer
from agent.adapters.checks import NetworkChecks
from agent.adapters.commits import ContainerCommits
from agent.adapters.devices import NodeDevices, machine
from agent.adapters.disk import FileDisk
from agent.adapters.imageroom import ImageRoom
from agent.adapters.images import StoredImages
from agent.adapters.layout import MONITORS, Layout
from agent.adapters.logs import FileLogs
from agent.adapters.meter import NodeMeter
from agent.adapters.network import RoutedNetwork
from agent.adapters.ownmachine import OwnMachine
from agent.adapters.probes import NodeProber
from agent.adapters.registries import Outside
from agent.adapters.runtime import Launched
from agent.core import users
from agent.core.container import NodeContext
from agent.core.users import IdPool
from agent.fetchers import Fetchers
from agent.members import Members
from agent.naming import Naming
from agent.renewal import Renewal
from agent.rpc import Server
from agent.servers import Servers
from agent.session import Session
from agent.streams import Answers, Streams
from agent.telling import Telling
from agent.worker import Worker
from protos import supervision
from protos.orch.v1 import dispatcher_pb2 as dpb
from runtime import cgroups, defaults, userprobe
from runtime.errors import ContainerError
from telemetry import logs
from trust.core.identity import Role
from trust.folder import Folder, Material, NotTrusted

log = structlog.get_logger()

MAX_DESCRIPTORS = 16_384


def main(arguments: list[str] | None = None, *, early_names: Sequence[socket.socket] = ()) -> None:
    """Run an agent until it is told to end. `early_names`: the sockets at which names are asked for already."""
    options = command_line.parse(arguments)
    supervisor = supervision.Supervisor()  # before anything is started that would inherit what it is told by
    logs.configure(options.log_level, options.log_format, program="orch-agent", node=options.name)
    _allow_descriptors()
    state = Path(options.state).absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout = Layout(state, Path(options.run_dir).absolute() if options.run_dir else None)
    lock = os.open(layout.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"orch-agent: another agent uses {state}; stop it first, or choose another folder with --state")
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d" % os.getpid(), 0)
    _check_ids(options.ids)
    _check_groups()
    disk = FileDisk(layout)
    # Here, since it forks: no thread is there yet.
    no_users = userprobe.why_not(str(layout.images), str(layout.tasks), first_id=options.ids.first)
    if no_users:
        log.warning("containers get the users of this node, unless they insist on their own", reason=no_users)
    asyncio.run(run(options, layout, disk, no_users, early_names, supervisor))


async def run(
    options: argparse.Namespace,
    layout: Layout,
    disk: FileDisk,
    no_users: str,
    early_names: Sequence[socket.socket],
    supervisor: supervision.Supervisor,
) -> None:
    """Make everything, and live until a signal comes."""
    chance = random.Random()  # noqa: S311 - for jitter
    server = Server(disk.node_id(), _own(options.trust, disk.node_id()))
    folder = Folder(Path(options.trust or ""))
    renewed = Renewal(server, folder, now_ms, chance)
    runtime = Launched(layout, now_ms=now_ms, group=_monitors_group(options, supervisor))
    images = StoredImages(layout.images, server, Outside(options.registries, options.registry_credentials))
    names = Naming(
        lambda address: worker.task_at(address),  # noqa: PLW0108 - it is made next
        resolv_conf=Path(options.resolv_conf),
        note=layout.names,
        early=early_names,
    )
    worker = _worker(options, layout, disk, no_users, runtime, images, names, chance)
    meter = NodeMeter(runtime, lambda: worker.running)
    logs_, answers = FileLogs(layout), _answers(options, meter)
    commits = ContainerCommits(layout, images.store, paused=runtime.paused, source=worker.commit_source)
    streams = Streams(
        connector=server, runtime=runtime, logs=logs_, answers=answers, commits=commits, over=worker.over, now_ms=now_ms
    )
    members = Members(lambda: worker.network) if options.trust else None
    telling = Telling(server, members, worker.restored, now_ms)
    fetchers = Fetchers(server.may_fetch, members, now_ms) if members is not None else None
    blobs = BlobServer(images.store, images.holdings, imageoptions.sharing_of(options), fetchers)
    worker.on_network = blobs.look_again
    try:
        at = options.address, options.blob_port
        async with blobserver.serving(blobs, *at, server.shown(), telling.health) as blob_port:
            session = Session(
                connector=server,
                worker=worker,
                streams=streams,
                servers=_servers(options, layout),
                register=_register(options, layout, disk.node_id(), no_users, blob_port),
                holdings=images.holdings,
                chance=chance,
                told_roots=renewed.told_roots,
            )
            seen = state_metrics.Node(worker=worker, session=session, meter=meter, images=images.store, server=server)
            # What is alive now lives as long as the agent does; collections need not look at it.
            gc.freeze()
            log.info("agent", name=options.name, state=str(layout.state), pid=os.getpid())
            room = ImageRoom(images, lambda: worker.images_needed, imageoptions.room_of(options), worker.restored)
            lives = [images.run(), names.run(), worker.run(), session.run(), room.run()]
            lives.append(_supervised(supervisor, worker, options.name))
            async with telling.serving(seen, folder, options.address, options.metrics_port):
                lives += [renewed.run()] if options.trust else []
                await _live(*lives, last=goodbye.Goodbye(session, supervisor, int(options.back_within * 1000)).say)
            supervisor.stopping()
    finally:
        await server.close()
        await runtime.close()


def _worker(
    options: argparse.Namespace,
    layout: Layout,
    disk: FileDisk,
    no_users: str,
    runtime: Launched,
    images: StoredImages,
    names: Naming,
    chance: random.Random,
) -> Worker:
    """Who keeps the tasks, on this machine as it is."""
    return Worker(
        runtime=runtime,
        prober=NodeProber(runtime),
        images=images,
        network=RoutedNetwork(layout, runtime, node_address=options.address, trusted=options.trusted),
        names=names,
        disk=disk,
        devices=NodeDevices(),
        users=IdPool(options.ids),
        node=_context(options, no_users),
        now_ms=now_ms,
        chance=chance,
    )


async def _supervised(supervisor: supervision.Supervisor, worker: Worker, name: str) -> None:
    """Ready is an agent that knows what runs here; whether the control plane can be reached is another matter."""
    await worker.restored.wait()
    await supervisor.run(f"node {name}")


def _monitors_group(options: argparse.Namespace, supervisor: supervision.Supervisor) -> str:
    """Beside the tasks where these have a unit of systemd's, so that the agent's own has nothing but the agent."""
    with_unit = supervisor.present and options.cgroup_parent.endswith(".service")
    return f"{options.cgroup_parent}/{MONITORS}" if with_unit else ""


def _servers(options: argparse.Namespace, layout: Layout) -> Servers:
    """Without certificates whoever answers could send the agent anywhere: then nothing is learnt."""
    configured = options.server.split(",")
    if not options.trust:
        return Servers(configured)
    return Servers(
        configured, servers.load(layout.servers), lambda told: whole.replace(layout.servers, servers.text(told))
    )


def _context(options: argparse.Namespace, no_users: str) -> NodeContext:
    """What every container's configuration is made from."""
    return NodeContext(
        name=options.name,
        cgroup_parent=options.cgroup_parent,
        base=defaults.config(["-"], cgroups_path="/-"),
        machine=machine(no_users=no_users),
        address=options.address,
    )


def _answers(options: argparse.Namespace, meter: NodeMeter) -> Answers:
    """Who knows this machine. The doctor is told what the agent was told."""
    paths = {"state": options.state, "resolv-conf": options.resolv_conf, "trust": options.trust}
    given = {name: str(Path(path).absolute()) for name, path in paths.items() if path}
    ports = {"blob-port": options.blob_port, "metrics-port": options.metrics_port}
    said = {**given, **ports, "address": options.address, "ids": options.ids}
    doctor = OwnMachine([f"--{name}={value}" for name, value in said.items()])
    return Answers(checks=NetworkChecks(options.address), meter=meter, doctor=doctor)


async def _live(*lives: Coroutine[Any, Any, None], last: Callable[[signal.Signals], Awaitable[None]]) -> None:
    """Run what never ends by itself, until a signal comes; with that `last`, and then the end."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in lives]
        await last(await _told_to_end())
        for task in tasks:
            task.cancel()


def _own(folder: str | None, node_id: str) -> Material | None:
    """What this node is known by. Ends when the folder is not of this node."""
    if not folder:
        return None
    try:
        own = Folder(Path(folder)).load(Role.NODE)
    except NotTrusted as error:
        sys.exit(f"orch-agent: {error}")
    if own.identity.name != node_id:
        sys.exit(
            f"orch-agent: {folder} is of the node {own.identity.name}, and --state of the node {node_id}; "
            "give those that were made together, or join anew"
        )
    if own.facts.not_after_ms <= now_ms():  # what runs here is looked after all the same
        log.error(
            "the certificate has expired: nobody lets this node in", remedy="`orchctl node join` with a new token"
        )
    return own


def _register(options: argparse.Namespace, layout: Layout, node_id: str, no_users: str, blob_port: int) -> dpb.Register:
    """How the node presents itself."""
    description = node.describe(
        address=options.address,
        blob_port=blob_port,
        containers=options.ids.ranges,
        no_users=no_users,
        disk=layout.state,
        generic=dict(options.resource),
    )
    labels = dict(label.split("=", 1) for label in options.label)
    return dpb.Register(node_id=node_id, node_name=options.name, description=description, labels=labels)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


async def _told_to_end() -> signal.Signals:
    """The first signal that says so."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.put_nowait, number)
    first = await told.get()
    log.info("told to end; containers live on", signal=first.name)
    return first


def _check_ids(ids: users.Ids) -> None:
    """End when somebody has them already, as far as the files of this machine know."""
    files = {path: Path(path).read_text(errors="replace") for path in users.FILES if Path(path).exists()}
    if taken := users.conflict(ids, files):
        sys.exit(f"orch-agent: --ids {ids}: {taken}; choose others, which nobody has, for the users of containers")


def _check_groups() -> None:
    """End where there is nothing to keep tasks within their limits with."""
    try:
        cgroups.current_layout().required()
    except ContainerError as error:
        sys.exit(f"orch-agent: {error}")


_ID_FILES = tuple(Path("/etc", name) for name in ("passwd", "group", "subuid", "subgid"))


def _allow_descriptors() -> None:
    """One for each container's monitor, and some for each stream: the usual 1024 would be the limit of the node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
