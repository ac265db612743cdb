"""The steps of a creation that are the same for every parent: a monitor, or a command that goes away (`unattended`).

One rule: each step undoes what it did when it fails, so that whoever calls one needs to undo only the others.
"""

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from runtime import cgroups, errors, hooks, namespaces, protocol, rootless, spec, state, syscalls
from runtime.values import frozen

SETUP_TIMEOUT_S: Final = 120.0


@frozen
class Place:
    """Where a container is made. `lock` is the descriptor that holds its folder's lock."""

    folder: str
    group: cgroups.Cgroup
    lock: int


@contextlib.contextmanager
def place(
    root: str,
    container: str,
    config: dict[str, Any] | bytes,
    wanted: spec.Spec,
    *,
    bundle: str = "",
    layout: cgroups.Layout | None = None,
    scope: Callable[[], str] | None = None,
) -> Iterator[Place]:
    """Make the container's folder, with its config.json, and its cgroup; both go again when the block fails.

    The configuration is the object, or its text. The folder is locked from its first moment on (`state.locked`); the
    caller unlocks it when the container is whole. `layout` is this machine's, for a caller that knows it already.
    `scope` has somebody else make what the cgroup is in, and returns the cgroup's path; else that is the
    configuration's.
    """
    folder = state.folder(root, container)
    layout = layout or cgroups.current_layout()
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        raise errors.ContainerExists(f"container {container}: exists already; delete it first") from None
    except OSError as error:
        raise errors.SetupFailed.at("state folder", error) from None
    lock = -1
    try:
        lock = _lock(folder)
        state.write_new(os.path.join(folder, state.CONFIG_FILE), config)
        path = scope() if scope is not None else wanted.cgroups_path
        group = rootless.create_group(cgroups.Cgroup.plan(layout, path, wanted.resources), wanted.resources)
        try:
            yield Place(folder=folder, group=group, lock=lock)
        except BaseException:
            with contextlib.suppress(errors.SetupFailed):  # the first failure is the one to tell
                group.delete()
            raise
    except BaseException:
        state.remove_folder(folder)
        if lock >= 0:
            os.close(lock)
        _after_failure(container, wanted, bundle)
        raise


def _lock(folder: str) -> int:
    """Whoever comes in between is about to remove it."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            return lock
    os.close(lock)
    raise errors.ContainerExists(f"container {os.path.basename(folder)}: is being deleted; try again")


def _after_failure(container: str, wanted: spec.Spec, bundle: str) -> None:
    """What hooks have set up outside, others take down again."""
    if wanted.hooks.poststop:
        told = state.describe(container, "stopped", pid=None, bundle=bundle, annotations=wanted.annotations)
        with own_pid_namespace():
            hooks.run_to_the_end(wanted.hooks.poststop, told)


def enter_pid_namespace(wanted: spec.Spec) -> None:
    """Before the fork. With a user namespace, to which it must belong, the fork does it (`userns.be_born`)."""
    if wanted.user_namespace is None:
        namespaces.enter_pid_namespace(wanted)


def first_process(wanted: spec.Spec, forked: int, channel: socket.socket) -> int:
    """The pid of the first process, which with a user namespace is not the fork but follows it."""
    if wanted.user_namespace is None:
        return forked
    channel.settimeout(SETUP_TIMEOUT_S)
    try:
        message = _receive(channel)
    except BaseException:
        os.kill(forked, signal.SIGKILL)
        raise
    finally:
        os.waitpid(forked, 0)
    pid = int(message.body["born"])
    if any(namespace.kind == "pid" for namespace in wanted.namespaces):
        enter_pid_namespace_of(pid)
    return pid


def enter_pid_namespace_of(pid: int) -> None:
    """So that what is forked for an exec is born there, too."""
    with errors.step("linux.namespaces: pid"):
        pidfd = os.pidfd_open(pid)
        with contextlib.suppress(ProcessLookupError):  # it has failed already, and its channel says why
            syscalls.setns(pidfd, syscalls.CLONE_NEWPID)
        os.close(pidfd)


@contextlib.contextmanager
def own_pid_namespace() -> Iterator[None]:
    """Children are born where the caller is, and not in the container's pid namespace."""
    own, current = os.stat("/proc/self/ns/pid"), os.stat("/proc/self/ns/pid_for_children")
    if own.st_ino == current.st_ino:
        yield
        return
    here = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    containers = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(here, syscalls.CLONE_NEWPID)
        yield
    finally:
        syscalls.setns(containers, syscalls.CLONE_NEWPID)
        os.close(here)
        os.close(containers)


def creation_hooks(wanted: spec.Spec, told: dict[str, Any], channel: socket.socket, *, start: bool) -> None:
    """Give a first process the network devices, and execute the hooks, that it waits for, and let it go on."""
    if wanted.net_devices:
        from runtime import netdevices  # only here: few containers wait for it

        netdevices.move(wanted.net_devices, told["pid"])
    with own_pid_namespace():
        hooks.run(wanted.hooks.creation, told)
    protocol.send(channel, {"hooked": True})
    if start:
        protocol.send(channel, {"start": True})


def fork_hooks(row: Sequence[spec.Hook], told: dict[str, Any]) -> int:
    """Execute poststart hooks in a child; returns a pipe that ends when they have. The caller reaps the child."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    with own_pid_namespace():
        pid = os.fork()
        if pid == 0:
            try:
                os.close(ours)
                syscalls.set_parent_death_signal(signal.SIGKILL)
                hooks.run_to_the_end(row, told)
            finally:
                os._exit(0)
    os.close(theirs)
    return ours


def await_created(channel: socket.socket, *, started: bool, run_hooks: Callable[[], None] = lambda: None) -> int:
    """Wait until the first process is ready, or runs its program; returns the terminal's master, or -1.

    `run_hooks` is called when it stands before its hooks.
    """
    channel.settimeout(SETUP_TIMEOUT_S)
    message = _receive(channel)
    if "hooks" in message.body:
        run_hooks()
        message = _receive(channel)
    master = message.fds[0] if message.fds else -1
    if started and (ended := _receive_or_end(channel)) is not None:
        raise_error(ended)
    return master


def _receive(channel: socket.socket) -> protocol.Message:
    message = _receive_or_end(channel)
    if message is None:
        raise errors.SetupFailed("the first process was killed during setup; is the memory limit too low?")
    raise_error(message)
    return message


def _receive_or_end(channel: socket.socket) -> protocol.Message | None:
    try:
        return protocol.receive(channel)
    except TimeoutError:
        raise errors.SetupFailed(f"the container was not set up within {SETUP_TIMEOUT_S:.0f} s") from None


def raise_error(message: protocol.Message) -> None:
    """Raise what a process that is being set up has told, if it was an error."""
    if "error" in message.body:
        raise errors.from_wire(message.body["error"])
