"""Containers without a monitor: a command makes one and goes away, and its caller keeps the first process.

    orchrun create          first process                        orchrun start
    ──────────────          ─────────────                        ─────────────
    fork                ──►
                            file tree, user … (firstprocess)
                        ◄── {"created": true} [terminal] or {"error": …}
    state.json, ends        waits at its gate, start.sock    ◄── connect, unlink start.sock, {"start": true}
                            exec                             ──► end of file, or {"error": …}

Whoever called the command (conmon, containerd's shim, a person's shell) is the child subreaper or the parent of both,
and hears of the end. Two rules: the folder is locked by each verb that changes something, and it says at every
moment what is true: "creating" until the first process waits, "created" while the gate is there, then "running".
"""

import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from runtime import (
    birth,
    cgrouppath,
    cgroups,
    errors,
    firstprocess,
    groupless,
    hooks,
    privilege,
    protocol,
    rootfs,
    rootless,
    spec,
    state,
    syscalls,
    values,
)
from runtime.seccomp import filter as filters
from runtime.state import State
from runtime.terms import Terms
from runtime.values import frozen


@frozen
class Request:
    """What is to be created. The standard streams are the caller's own."""

    root: str
    container: str
    config: dict[str, Any]  # root.path is absolute
    bundle: str
    preserved_fds: int = 0
    pid_file: str = ""
    take_terminal: Callable[[int], None] | None = None  # gets the master when the process has a terminal
    manager: str = "cgroupfs"  # or systemd; or disabled, and nothing of it is limited, counted or frozen


class Settled(NamedTuple):
    """A container whose cgroup is decided, and how that is found when the creation is cut short."""

    wanted: spec.Spec
    config: dict[str, Any]
    scope: Callable[[], str] | None = None


def create(request: Request) -> State:
    """Make the container, up to the moment before its program runs."""
    wanted, config, scope = _settle_group(request)
    wanted = rootless.enter(wanted)
    if wanted.process.terminal and request.take_terminal is None:
        raise errors.InvalidSpec("process.terminal: nobody takes the terminal; give --console-socket")
    with birth.place(request.root, request.container, config, wanted, bundle=request.bundle, scope=scope) as place:
        if place.group.folders:  # or it is gone without (`rootless`)
            place.group.apply(wanted.resources)
        created = _create_in(request, wanted, place)
    os.close(place.lock)
    return created


def _settle_group(request: Request) -> Settled:
    config, scope = request.config, None
    if request.manager == "disabled":
        return Settled(groupless.settle(spec.parse(config)), cgrouppath.replaced(config, ""))
    if request.manager == "systemd":
        from runtime import systemd  # only here, since few ask for it

        config, scope = systemd.settle(config, request.container)
    wanted = spec.parse(config)
    # The default is the calling user's, so it comes before that may become another.
    path = wanted.cgroups_path or state.default_cgroups_path(request.container)
    # Docker and podman read of the group's files how much was read and written.
    limits = values.replace(wanted.resources, counts_io=True)
    return Settled(values.replace(wanted, cgroups_path=path, resources=limits), config, scope)


def _create_in(request: Request, wanted: spec.Spec, place: birth.Place) -> State:
    folder, group = place.folder, place.group
    with errors.step(state.GATE_FILE):
        gate = protocol.listen(os.path.join(folder, state.GATE_FILE))
    described = state.describe(
        request.container, "creating", pid=0, bundle=request.bundle, annotations=wanted.annotations
    )
    order = filters.order(wanted.seccomp, request.root, described)
    folders = cgroups.visible_folders(group) if group.folders else ()
    tree = rootfs.Tree(spec=wanted, overlay=None, stage=folder, cgroup_folders=folders)
    told = {**described, "root": rootfs.stands_at(tree)}
    plan = firstprocess.Plan(
        spec=wanted,
        cgroup=group,
        stdio=(0, 1, 2),
        order=order,
        tree=tree,
        told=told,
        terms=Terms(
            supervised=False,
            gate=gate,
            preserved_fds=request.preserved_fds,
            keeps_groups=privilege.groups_are_fixed(),
        ),
    )
    if wanted.user_namespace is not None:
        # The first process follows a fork that ends; it is ours, to wait for when this fails, until we end as well.
        syscalls.set_child_subreaper()
    birth.enter_pid_namespace(wanted)
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        os.close(place.lock)
        channel.close()
        firstprocess.run(plan, theirs)
    theirs.close()
    gate.close()
    if order is not None:
        order.close()
    pid = birth.first_process(wanted, pid, channel)
    try:
        run_hooks = functools.partial(birth.creation_hooks, wanted, {**told, "pid": pid}, channel, start=False)
        return _accompany(request, place, pid, channel, run_hooks)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _accompany(
    request: Request, place: birth.Place, pid: int, channel: socket.socket, run_hooks: Callable[[], None]
) -> State:
    """From the fork until the first process waits at its gate; a kill of this process leaves what `delete` removes."""
    folder = place.folder
    known = State(
        id=request.container,
        status="creating",
        pid=pid,
        pid_start=state.process_start(pid, zombie=True),
        monitor_pid=0,
        monitor_start=0,
        bundle=request.bundle,
        cgroups_path=place.group.path,
        created_ns=time.time_ns(),
        started_ns=0,
    )
    state.write(os.path.join(folder, state.STATE_FILE), known)
    master = birth.await_created(channel, started=False, run_hooks=run_hooks)
    channel.close()
    if master >= 0:
        assert request.take_terminal is not None, "a terminal that was not asked for"
        request.take_terminal(master)
    write_pid_file(request.pid_file, pid)
    known = values.replace(known, status="created")
    state.write(os.path.join(folder, state.STATE_FILE), known)
    return known


def write_pid_file(path: str, pid: int) -> None:
    """Tell a caller the pid, in one step; no path, no file."""
    if not path:
        return
    with errors.step("--pid-file"):
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(str(pid))
        os.rename(f"{path}.new", path)


def start(root: str, container: str) -> None:
    """Let a created container run its program; raises why that could not be executed."""
    with state.locked(root, container):
        known = state.load(root, container)
        if known.monitor_pid and known.status == "created":
            from runtime import client  # only here, since it is slow to import

            with client.adopt(root, container) as monitor:
                monitor.start()
            return
        if known.status != "created":
            raise errors.WrongStatus(f"container {container}: cannot be started, since it is {known.status}")
        _open_gate(root, known)
        # The state says when; that it runs is told by the gate's absence.
        started = values.replace(known, status="running", started_ns=time.time_ns())
        folder = state.folder(root, container)
        state.write(os.path.join(folder, state.STATE_FILE), started)
        hooks.after_start(state.load_config(folder), container, known.pid, known.bundle)


def _open_gate(root: str, known: State) -> None:
    path = os.path.join(state.folder(root, known.id), state.GATE_FILE)
    try:
        connection = protocol.connect(path)
    except ConnectionRefusedError:
        raise errors.WrongStatus(f"container {known.id}: its first process has ended before the start") from None
    with contextlib.closing(connection):
        # Before the word is given: a command that is killed here leaves a container that ends, not one in between.
        os.unlink(path)
        protocol.send(connection, {"start": True})
        connection.settimeout(birth.SETUP_TIMEOUT_S)
        try:
            message = protocol.receive(connection)
        except TimeoutError:
            raise errors.SetupFailed(f"container {known.id}: its program was not executed in time") from None
    if message is not None:
        birth.raise_error(message)
