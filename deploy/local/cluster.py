"""What people do with a local cluster: up, down, and switching its machines.

Called by `python -m deploy.local`, the demo and the tests.
"""

import fcntl
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.local import control, errors, network, nodes, plan, preflight, record, sweep, trust
from orchctl import config

DEFAULT_NAME: Final = "local"
_START_TIMEOUT_S: Final = 10.0
_READY_TIMEOUT_S: Final = 30.0
_DOWN_TIMEOUT_S: Final = 20.0
_PAUSE_S: Final = 0.05
_LOG_TAIL_BYTES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`owner` is the pid of the process that the cluster must not outlive; 0: none."""

    name: str
    folder: Path
    nodes: int = 3
    owner: int = 0
    network_mode: str = "auto"
    addresses: str = "ipv4"
    resources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    control_planes: int = 1


def default_folder(name: str) -> Path:
    """$XDG_STATE_HOME/orch/NAME."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "orch" / name


def which(name: str, folder: Path) -> str:
    """The options that name this cluster to the other commands, such as ` --name two`; none for the usual one."""
    options = [] if name == DEFAULT_NAME else ["--name", name]
    options += [] if folder == default_folder(name) else ["--state", str(folder.absolute())]
    return "".join(f" {shlex.quote(option)}" for option in options)


def up(options: Options, *, say: Callable[[str], None]) -> record.Record:
    """Start a cluster and wait until its nodes are ready. What an earlier one left behind is removed first."""
    preflight.check(name=options.name, nodes=options.nodes, control_planes=options.control_planes)
    options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = record.lock(options.folder)
    if lock is None:
        raise errors.LocalError(
            f"the cluster {options.name} is up already",
            hint=f"take it down first: orchctl cluster down{which(options.name, options.folder)}",
        )
    try:
        try:
            with _one_at_a_time():
                the_record = _prepare(options, say)
                _start_supervisor(the_record, lock=lock, owner=options.owner)
        finally:
            os.close(lock)  # from here on it is the supervisor's
        connect_nodes(the_record, set(the_record.plan.node_names))
        _choose_context(the_record.plan)
    except BaseException as error:
        _undo(options.folder, error)
        raise
    running = record.load(options.folder)
    assert running is not None, f"{options.folder} has lost its record"
    return running


def _undo(folder: Path, error: BaseException) -> None:
    """Leave nothing of a cluster that did not come up, but tell what its logs say."""
    begun = record.load(folder)
    if isinstance(error, errors.LocalError) and begun is not None:
        error.detail = f"{error.detail}\n{tails(begun.plan)}".strip()
    if not down(folder):
        with suppress(OSError):  # it holds something that is not ours
            folder.rmdir()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two clusters that start at the same moment would choose the same addresses."""
    descriptor = os.open(Path(__file__).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(options: Options, say: Callable[[str], None]) -> record.Record:
    left_over = record.load(options.folder)
    if left_over is not None:
        say(f"removing what is left of an earlier {options.name}")
        sweep.sweep(left_over)
    elif any(options.folder.iterdir()):
        raise errors.LocalError(
            f"{options.folder} is not empty and no cluster's folder", hint="name another with --state, or empty it"
        )
    sweep.empty_folder(options.folder)
    if network.exists(plan.host_link(options.name)):  # it goes with the cluster's last process
        raise errors.LocalError(
            f"another cluster called {options.name} is up, with another state folder",
            hint="choose another name with --name, or take that one down with its --state",
        )
    path = config.default_path()
    the_plan = plan.Plan(
        name=options.name,
        folder=str(options.folder.resolve()),
        nodes=options.nodes,
        lan=plan.choose_lan(network.taken()),
        config=str(path.absolute()),
        network_mode=options.network_mode,
        addresses=options.addresses,
        resources=options.resources,
        control_planes=options.control_planes,
    )
    for name in the_plan.process_names:
        (options.folder / name).mkdir(mode=0o700)
    the_record = record.Record(plan=the_plan, previous_context=config.load(path).current)
    record.save(the_record)
    trust.found(the_plan)
    return the_record


def _start_supervisor(the_record: record.Record, *, lock: int, owner: int) -> None:
    owner_fd = _open_owner(owner) if owner else None
    ready, write_ready = os.pipe()
    command = [sys.executable, "-m", "deploy.local.supervisor", the_record.plan.folder]
    command += ["--lock-fd", str(lock), "--ready-fd", str(write_ready)]
    command += ["--owner-fd", str(owner_fd)] if owner_fd is not None else []
    passed = [lock, write_ready, *([owner_fd] if owner_fd is not None else [])]
    with the_record.plan.log("supervisor").open("ab") as log, os.fdopen(ready, "rb") as pipe:
        # It forks and goes its own way at once.
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=passed, check=True)
        for descriptor in passed[1:]:
            os.close(descriptor)
        readable, _, _ = select.select([pipe], [], [], _START_TIMEOUT_S)
        if not readable or not pipe.read():
            raise errors.LocalError("the cluster's supervisor could not start")


def _open_owner(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise errors.LocalError(f"--owner-pid {pid}: there is no such process") from error


def connect_nodes(the_record: record.Record, names: set[str]) -> list[nodes.Node]:
    """Wait until those nodes are ready, and give the host routes to their tasks."""
    plan_ = the_record.plan
    ready = nodes.wait_until_ready(
        plan_, names, timeout_s=_READY_TIMEOUT_S, still_up=lambda: record.is_locked(Path(plan_.folder))
    )
    ways = [(node.subnet, plan_.node_address(node.name)) for node in ready]
    ways += [(node.subnet6, plan_.node_address6(node.name)) for node in ready]
    network.ip(*(f"route replace {subnet} via {way} dev {plan_.host_link}" for subnet, way in ways if subnet))
    return ready


def _choose_context(the_plan: plan.Plan) -> None:
    path = Path(the_plan.config)
    known = config.load(path).with_context(the_plan.name, the_plan.server, Path(the_plan.admin_trust))
    config.save(path, known.using(the_plan.name))


def tails(the_plan: plan.Plan) -> str:
    """The end of each log that says anything."""
    found = []
    for name in ("supervisor", *the_plan.process_names):
        path = the_plan.log(name)
        text = path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() if path.exists() else ""
        if text:
            found.append(f"--- {path}\n{text}")
    return "\n".join(found)


def down(folder: Path) -> bool:
    """Take a cluster down and remove everything of it. Whether there was anything. LocalError when something stays."""
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    the_record = _complete_record(folder, deadline)
    if the_record is None:
        return False
    for name in ("supervisor", "sweeper"):
        process = the_record.processes.get(name)
        if process is None:
            continue
        if name == "supervisor":
            process.signal(signal.SIGTERM)
        if not process.wait(max(deadline - time.monotonic(), 0)):
            raise errors.LocalError(
                f"the {name} (pid {process.pid}) is still there after {_DOWN_TIMEOUT_S:.0f} s",
                hint=f"kill -9 {process.pid}, then again",
            )
    sweep.sweep(the_record)  # the sweeper has done it all, unless it was killed
    sweep.remove_folder(folder)
    return True


def _complete_record(folder: Path, deadline: float) -> record.Record | None:
    """The record; while somebody holds the lock, only once it tells who: a supervisor may be just starting."""
    while True:
        the_record = record.load(folder)
        if (the_record is not None and "supervisor" in the_record.processes) or not record.is_locked(folder):
            return the_record
        if time.monotonic() > deadline:
            raise errors.LocalError(
                f"somebody holds {folder}, and its record does not say who", hint=f"fuser -v {folder} tells"
            )
        time.sleep(_PAUSE_S)


def existing(folder: Path) -> record.Record:
    """The record of a cluster that is up. LocalError when there is none."""
    the_record = record.load(folder)
    if the_record is None or not record.is_locked(folder):
        raise errors.LocalError(
            f"no cluster is up with the state folder {folder}",
            hint="start one: orchctl cluster up; or name the one that is meant with --name and --state",
        )
    return the_record


def kill_node(folder: Path, name: str) -> None:
    """Pull the plug of a machine: returns when every process of it has ended."""
    existing(folder)
    control.ask(folder, control.Request(verb="kill", node=name))


def start_node(folder: Path, name: str) -> None:
    """Switch a machine on again, and wait until a node is ready. Of a control plane, nothing is waited for.

    That it went off is noticed within three seconds; before that it would still be called ready, by what was.
    """
    the_record = existing(folder)
    if name in the_record.plan.instance_names:
        control.ask(folder, control.Request(verb="start", node=name))
        return
    if the_record.processes.get(name) is None:
        nodes.wait_until_missed(the_record.plan, name, timeout_s=_READY_TIMEOUT_S)
        trust.admit(the_record.plan, name)
    control.ask(folder, control.Request(verb="start", node=name))
    connect_nodes(the_record, {name})
