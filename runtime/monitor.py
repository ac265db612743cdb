"""The monitor: one small process for each container, from its creation to its end.

It is forked by the launcher with everything imported, makes the container, reports once, and then supervises it
(`supervisor`). Two rules: whatever fails before the report is undone here, so a failed creation leaves nothing; and
until the report it dies with the launcher, so that nothing is made behind the back of whoever saw the launcher end.
"""

import dataclasses
import functools
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from runtime import birth, cgroups, errors, firstprocess, logs, protocol, rootfs, spec, state, supervisor, syscalls
from runtime.fields import Fields
from runtime.seccomp import filter as filters

_DEFAULT_LOG_BYTES: Final = 10 * 1024 * 1024
_DEFAULT_LOG_FILES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the launcher was asked to create."""

    root: str
    container: str
    config: dict[str, Any]
    overlay: spec.Overlay | None
    bundle: str
    log: dict[str, Any] | None
    start: bool
    stdio: tuple[int, ...]  # nothing, or the three descriptors to use
    report: int  # the pipe that takes the one reply


def parse(body: dict[str, Any], root: str, fds: tuple[int, ...], report: int) -> Request:
    """Read a `create` request; raises InvalidSpec."""
    fields = Fields({name: value for name, value in body.items() if name not in {"id", "verb", "config"}}, "create")
    if len(fds) not in {0, 3}:
        raise errors.InvalidSpec(f"create: {len(fds)} descriptors; give none, or stdin, stdout and stderr")
    overlay = spec.parse_overlay(body["overlay"]) if fields.maybe_child("overlay") else None
    log = body["log"] if fields.maybe_child("log") else None
    request = Request(
        root=root,
        container=fields.text("container"),
        config=body.get("config", {}),
        overlay=overlay,
        bundle=fields.text("bundle", default=""),
        log=log,
        start=fields.flag("start"),
        stdio=fds,
        report=report,
    )
    fields.finish()
    return request


def run(body: dict[str, Any], root: str, fds: tuple[int, ...], report: int) -> NoReturn:
    """Be the monitor of a new container. `report` is a pipe that takes one reply and is closed then."""
    number = int(body["id"])
    code = 1
    try:
        _detach()
        _end_if_unwanted(report)
        supervised = _create(parse(body, root, fds, report))
        _close_all(fds)
        reply = protocol.ok(number, pid=supervised.state.pid, monitor_pid=os.getpid(), id=supervised.state.id)
        supervisor.Supervisor(supervised).run(lambda: _report(report, reply))
        code = 0
    except errors.ContainerError as error:
        _report(report, protocol.failed(number, error))
    except Exception as error:  # noqa: BLE001 - the last door: the reason must reach the caller
        import traceback  # only here: its modules would be carried along by every fork

        told = errors.ContainerError(f"internal error of the monitor: {error!r}\n{traceback.format_exc()}")
        _report(report, protocol.failed(number, told))
    finally:
        os._exit(code)


def stand_by(channel: socket.socket, root: str, rehearse: Callable[[], None]) -> NoReturn:
    """Be the next monitor: get ready, wait for a `create` request with [report, *stdio], and serve it."""
    try:
        _detach()
        rehearse()
        message = protocol.receive(channel)
        channel.close()
        if message is not None:
            report, *fds = message.fds
            run(message.body, root, tuple(fds), report)
    finally:
        os._exit(0)


def _detach() -> None:
    """Leave the launcher's session and take its orphans' place as their parent; harmless when done twice."""
    syscalls.set_parent_death_signal(signal.SIGKILL)
    gc.disable()  # nothing here is cyclic, and a collection would unshare the launcher's pages
    if os.getsid(0) != os.getpid():
        os.setsid()
    syscalls.set_process_name("orch-monitor")
    syscalls.set_child_subreaper()


def _end_if_unwanted(report: int) -> None:
    """The kernel tells of the launcher's end from `_detach` on only; of an earlier one the pipe tells."""
    watch = select.poll()
    watch.register(report, 0)
    if watch.poll(0):
        os._exit(1)


def _report(pipe: int, reply: dict[str, Any]) -> None:
    # The container is whole, or gone again. Before the report, since whoever gets it may end the launcher at once.
    syscalls.set_parent_death_signal(0)
    try:
        os.write(pipe, protocol.encode(reply))
        os.close(pipe)
    except OSError:
        return  # the launcher has gone, or the report was made; the container's files tell the rest


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _create(request: Request) -> supervisor.Supervised:
    wanted = spec.parse(request.config)
    path = wanted.cgroups_path or state.default_cgroups_path(request.container)
    wanted = dataclasses.replace(wanted, cgroups_path=path)
    if request.overlay is None and not wanted.root_path:
        raise errors.InvalidSpec("root.path: is required when there is no overlay")
    with birth.place(request.root, request.container, request.config, wanted, bundle=request.bundle) as (folder, group):
        return _create_in(request, wanted, group, folder)


def _create_in(request: Request, wanted: spec.Spec, group: cgroups.Cgroup, folder: str) -> supervisor.Supervised:
    group.apply(wanted.resources)
    output = _open_output(request, wanted)
    order = filters.order(wanted.seccomp, request.root, _described(request, wanted))
    tree = rootfs.Tree(
        spec=wanted, overlay=request.overlay, stage=folder, cgroup_folders=cgroups.visible_folders(group)
    )
    told = {**_described(request, wanted), "root": rootfs.stands_at(tree)}
    plan = firstprocess.Plan(
        spec=wanted,
        cgroup=group,
        stdio=output.stdio,
        order=order,
        tree=tree,
        told=told,
    )
    birth.enter_pid_namespace(wanted)
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if request.start and not wanted.hooks.creation:  # else it comes after them
        protocol.send(channel, {"start": True})
    pid = os.fork()
    if pid == 0:
        # Or the launcher would not see, by the pipe's end, that the monitor was killed.
        os.close(request.report)
        channel.close()
        firstprocess.run(plan, theirs)
    theirs.close()
    if order is not None:
        order.close()
    for fd in output.stdio:
        if fd >= 0 and fd not in request.stdio:
            os.close(fd)
    pid = birth.first_process(wanted, pid, channel)
    try:
        # While the first process sets itself up, on the other processor if there is one.
        supervised = _supervised(request, wanted, group, output, folder, pid, channel)
        run_hooks = functools.partial(birth.creation_hooks, wanted, {**told, "pid": pid}, channel, start=request.start)
        master = birth.await_created(channel, started=request.start, run_hooks=run_hooks)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    # Last, since it is what makes the container known: a state file promises a socket.
    with errors.step("write state.json"):
        state.put_in_place(os.path.join(folder, state.STATE_FILE))
    return dataclasses.replace(supervised, master=master)


def _described(request: Request, wanted: spec.Spec) -> dict[str, Any]:
    return state.describe(request.container, "creating", pid=0, bundle=request.bundle, annotations=wanted.annotations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where the first process's streams go: its descriptors, our ends of its pipes, and the log."""

    stdio: tuple[int, int, int]
    pipes: tuple[int, ...]
    log: logs.LogFile | None


def _open_output(request: Request, wanted: spec.Spec) -> Output:
    log = _open_log(request.log)
    if request.stdio:
        stdin, stdout, stderr = request.stdio
        return Output(stdio=(stdin, stdout, stderr), pipes=(), log=log)
    if log is None or wanted.process.terminal:
        return Output(stdio=(-1, -1, -1), pipes=(), log=log)
    ours_out, theirs_out = os.pipe2(os.O_CLOEXEC)
    ours_err, theirs_err = os.pipe2(os.O_CLOEXEC)
    return Output(stdio=(-1, theirs_out, theirs_err), pipes=(ours_out, ours_err), log=log)


def _open_log(options: dict[str, Any] | None) -> logs.LogFile | None:
    if options is None:
        return None
    fields = Fields(options, "create.log")
    path = fields.text("path")
    max_bytes = fields.number("max_bytes", low=4096, high=2**50, default=_DEFAULT_LOG_BYTES)
    max_files = fields.number("max_files", low=1, high=1000, default=_DEFAULT_LOG_FILES)
    fields.finish()
    with errors.step("create.log.path"):
        return logs.LogFile(path, max_bytes=max_bytes, max_files=max_files)


def _supervised(
    request: Request,
    wanted: spec.Spec,
    group: cgroups.Cgroup,
    output: Output,
    folder: str,
    pid: int,
    channel: socket.socket,
) -> supervisor.Supervised:
    now = time.time_ns()
    known = state.State(
        id=request.container,
        status="running" if request.start else "created",
        pid=pid,
        pid_start=state.process_start(pid, zombie=True),
        monitor_pid=os.getpid(),
        monitor_start=state.process_start(os.getpid()),
        bundle=request.bundle,
        cgroups_path=wanted.cgroups_path,
        created_ns=now,
        started_ns=now if request.start else 0,
    )
    with errors.step("monitor.sock"):
        listener = protocol.listen(os.path.join(folder, state.SOCKET_FILE))
    with errors.step("write state.json"):
        state.write_beside(os.path.join(folder, state.STATE_FILE), known)
        state.reserve(os.path.join(folder, state.EXIT_FILE))
    return supervisor.Supervised(
        state=known,
        folder=folder,
        spec=wanted,
        process_config=request.config["process"],
        cgroup=group,
        pipes=output.pipes,
        log=output.log,
        master=-1,
        channel=channel,
        listener=listener,
    )
