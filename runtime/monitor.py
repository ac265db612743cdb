"""The monitor: one small process for each container, from its creation to its end.

It is forked by the zygote with everything imported, makes the container, or is given one that was made (`scripted`),
reports once, and then supervises it (`supervisor`). Two rules: whatever fails before the report is undone here, so a
failed creation leaves nothing; and nothing is made behind the back of whoever saw the launcher end: what is begun is
locked until it is whole, so that a deletion waits for it, and nothing is begun once the launcher has gone.
"""

import contextlib
import functools
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from runtime import (
    birth,
    cgroups,
    errors,
    execs,
    firstprocess,
    logs,
    protocol,
    rootfs,
    spec,
    state,
    supervisor,
    syscalls,
    values,
)
from runtime.fields import Fields
from runtime.seccomp import filter as filters
from runtime.values import frozen

_DEFAULT_LOG_BYTES: Final = 10 * 1024 * 1024
_DEFAULT_LOG_FILES: Final = 3

TOLD: Final = b"."
"""What the launcher hears when its client has the reply."""


class Reporter(NamedTuple):
    """Whom a creation is told of: the launcher's client, and the launcher, which waits for that."""

    client: int  # a socket that is the launcher's as well
    launcher: int  # a pipe that takes `TOLD`; without it the launcher says that the monitor was killed

    def tell(self, reply: dict[str, Any]) -> None:
        """Send the one reply, and close. The client does not wait for the launcher to pass it on."""
        with contextlib.suppress(OSError, errors.PeerGone):  # they have gone; the container's files tell the rest
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=self.client)
            protocol.send(client, reply)
            client.close()
            os.write(self.launcher, TOLD)
        with contextlib.suppress(OSError):
            os.close(self.launcher)

    def close(self) -> None:
        """For a fork that must not keep them open."""
        os.close(self.client)
        os.close(self.launcher)


@frozen
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


def parse(body: dict[str, Any], root: str, fds: tuple[int, ...]) -> Request:
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
    )
    fields.finish()
    return request


def run(
    body: dict[str, Any], root: str, fds: tuple[int, ...], report: Reporter, prepared: supervisor.Prepared
) -> NoReturn:
    """Be the monitor of a new container."""

    def make() -> supervisor.Supervised:
        detach()
        return create(parse(body, root, fds), report)

    serve(int(body["id"]), report, make, prepared)


def serve(
    number: int, report: Reporter, make: Callable[[], supervisor.Supervised], prepared: supervisor.Prepared
) -> NoReturn:
    """Be the monitor of the container that `make` makes, and reply to the request of this number."""
    code = 1
    tell: Callable[[dict[str, Any]], None] = report.tell
    try:
        supervised = make()
        # Who ends all processes of a group (systemd, when the machine goes off) means the container's; its monitor ends
        # with it, having recorded how. The first process is born by now, and further ones unblock everything.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        known, how = supervised.state, supervised.scripted
        reply = protocol.ok(number, pid=known.pid, monitor_pid=known.monitor_pid, id=known.id, scripted=how)
        if not supervised.poststart:
            tell(reply)  # it is whole: who connects now is served soon
            tell = _tell_nobody
        supervisor.Supervisor(supervised, prepared).run(lambda: tell(reply))
        code = 0
    except errors.ContainerError as error:
        tell(protocol.failed(number, error))
    except Exception as error:  # noqa: BLE001 - the last door: the reason must reach the caller
        import traceback  # only here: its modules would be carried along by every fork

        told = errors.ContainerError(f"internal error of the monitor: {error!r}\n{traceback.format_exc()}")
        tell(protocol.failed(number, told))
    finally:
        os._exit(code)


def _tell_nobody(_reply: dict[str, Any]) -> None:
    """They were told."""


def detach() -> None:
    """Leave the launcher's session and take its orphans' place as their parent; harmless when done twice."""
    gc.disable()  # nothing here is cyclic, and a collection would unshare the launcher's pages
    if os.getsid(0) != os.getpid():
        os.setsid()
    syscalls.set_process_name("orch-monitor")
    syscalls.set_child_subreaper()


def _check_wanted(report: Reporter) -> None:
    """Raise PeerGone when the launcher has ended, as the pipe tells that nobody can read."""
    watch = select.poll()
    watch.register(report.launcher, 0)
    if watch.poll(0):
        raise errors.PeerGone("create: the launcher has ended")


def create(request: Request, report: Reporter) -> supervisor.Supervised:
    """Make the container; its standard streams are closed here then."""
    wanted = spec.parse(request.config)
    path = wanted.cgroups_path or state.default_cgroups_path(request.container)
    wanted = values.replace(wanted, cgroups_path=path)
    if request.overlay is None and not wanted.root_path:
        raise errors.InvalidSpec("root.path: is required when there is no overlay")
    with birth.place(request.root, request.container, request.config, wanted, bundle=request.bundle) as place:
        # After the folder was locked: whoever finds no folder now finds none later.
        _check_wanted(report)
        supervised = _create_in(request, report, wanted, place)
    os.close(place.lock)
    for fd in request.stdio:
        os.close(fd)
    return supervised


def _create_in(request: Request, report: Reporter, wanted: spec.Spec, place: birth.Place) -> supervisor.Supervised:
    folder, group = place.folder, place.group
    group.apply(wanted.resources)
    output = open_output(request, terminal=wanted.process.terminal)
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
    if request.start and not wanted.awaits_creator:  # else it comes after them
        protocol.send(channel, {"start": True})
    pid = os.fork()
    if pid == 0:
        # Or the launcher would not see, by the pipe's end, that the monitor was killed.
        report.close()
        os.close(place.lock)
        channel.close()
        firstprocess.run(plan, theirs)
    theirs.close()
    if order is not None:
        order.close()
    output.close_theirs(request.stdio)
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
    if request.start:
        channel.close()
    return values.replace(supervised, master=master, channel=None if request.start else channel)


def _described(request: Request, wanted: spec.Spec) -> dict[str, Any]:
    return state.describe(request.container, "creating", pid=0, bundle=request.bundle, annotations=wanted.annotations)


@frozen
class Output:
    """Where the first process's streams go: its descriptors, our ends of its pipes, and the log."""

    stdio: tuple[int, int, int]
    pipes: tuple[int, ...]
    log: logs.LogFile | None

    def close_theirs(self, stdio: tuple[int, ...]) -> None:
        """Let go of the first process's ends, but for those that came with the request."""
        for fd in self.stdio:
            if fd >= 0 and fd not in stdio:
                os.close(fd)

    def close(self) -> None:
        """Let go of ours, when nothing came of the container."""
        for fd in self.pipes:
            os.close(fd)
        if self.log is not None:
            self.log.close()


def open_output(request: Request, *, terminal: bool) -> Output:
    """Open the log, and make its pipes."""
    log = open_log(request.log)
    if request.stdio:
        stdin, stdout, stderr = request.stdio
        return Output(stdio=(stdin, stdout, stderr), pipes=(), log=log)
    if log is None or terminal:
        return Output(stdio=(-1, -1, -1), pipes=(), log=log)
    ours_out, theirs_out = os.pipe2(os.O_CLOEXEC)
    ours_err, theirs_err = os.pipe2(os.O_CLOEXEC)
    return Output(stdio=(-1, theirs_out, theirs_err), pipes=(ours_out, ours_err), log=log)


def open_log(options: dict[str, Any] | None) -> logs.LogFile | None:
    """Open what a request's `log` says; raises InvalidSpec and SetupFailed."""
    found = log_options(options)
    if found is None:
        return None
    path, max_bytes, max_files = found
    with errors.step("create.log.path"):
        return logs.LogFile(path, max_bytes=max_bytes, max_files=max_files)


def log_options(options: dict[str, Any] | None) -> tuple[str, int, int] | None:
    """Path, most bytes of a file, and most files; raises InvalidSpec."""
    if options is None:
        return None
    fields = Fields(options, "create.log")
    path = fields.text("path")
    max_bytes = fields.number("max_bytes", low=4096, high=2**50, default=_DEFAULT_LOG_BYTES)
    max_files = fields.number("max_files", low=1, high=1000, default=_DEFAULT_LOG_FILES)
    fields.finish()
    return path, max_bytes, max_files


def _supervised(
    request: Request,
    wanted: spec.Spec,
    group: cgroups.Cgroup,
    output: Output,
    folder: str,
    pid: int,
    channel: socket.socket,
) -> supervisor.Supervised:
    known = known_state(request, pid, wanted.cgroups_path)
    with errors.step("monitor.sock"):
        listener = protocol.listen(os.path.join(folder, state.SOCKET_FILE))
    with errors.step("write state.json"):
        state.write_beside(os.path.join(folder, state.STATE_FILE), known)
        state.reserve(os.path.join(folder, state.EXIT_FILE))
    return supervisor.Supervised(
        state=known,
        folder=folder,
        configured=lambda: execs.Configured(spec=wanted, process=request.config["process"]),
        own_pids=wanted.makes("pid"),
        poststart=wanted.hooks.poststart,
        cgroup=group,
        pipes=output.pipes,
        log=output.log,
        master=-1,
        channel=channel,
        listener=listener,
    )


def known_state(request: Request, pid: int, cgroups_path: str) -> state.State:
    """The state of a container whose first process was just made by the caller, its monitor."""
    now = time.time_ns()
    return state.State(
        id=request.container,
        status="running" if request.start else "created",
        pid=pid,
        pid_start=state.process_start(pid, zombie=True),
        monitor_pid=os.getpid(),
        monitor_start=state.process_start(os.getpid()),
        bundle=request.bundle,
        cgroups_path=cgroups_path,
        created_ns=now,
        started_ns=now if request.start else 0,
    )
