"""The steps of a creation that are the same for every parent: a monitor, or a command that goes away (`unattended`).

One rule: each step undoes what it did when it fails, so that whoever calls one needs to undo only the others.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any, Final

from runtime import cgroups, errors, namespaces, protocol, spec, state, syscalls

SETUP_TIMEOUT_S: Final = 120.0


@contextlib.contextmanager
def place(root: str, container: str, config: dict[str, Any], wanted: spec.Spec) -> Iterator[tuple[str, cgroups.Cgroup]]:
    """Make the container's folder, with its config.json, and its cgroup; both go again when the block fails."""
    folder = state.folder(root, container)
    group = cgroups.Cgroup.plan(cgroups.current_layout(), wanted.cgroups_path, wanted.resources)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        raise errors.ContainerExists(f"container {container}: exists already; delete it first") from None
    except OSError as error:
        raise errors.SetupFailed.at("state folder", error) from None
    try:
        state.write_new(os.path.join(folder, state.CONFIG_FILE), config)
        group.create(wanted.resources)
        try:
            yield folder, group
        except BaseException:
            with contextlib.suppress(errors.SetupFailed):  # the first failure is the one to tell
                group.delete()
            raise
    except BaseException:
        state.remove_folder(folder)
        raise


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
        _enter_pid_namespace_of(pid)
    return pid


def _enter_pid_namespace_of(pid: int) -> None:
    """So that what is forked for an exec is born there, too."""
    with errors.step("linux.namespaces: pid"):
        pidfd = os.pidfd_open(pid)
        with contextlib.suppress(ProcessLookupError):  # it has failed already, and its channel says why
            syscalls.setns(pidfd, syscalls.CLONE_NEWPID)
        os.close(pidfd)


def await_created(channel: socket.socket, *, started: bool) -> int:
    """Wait until the first process is ready, or runs its program; returns the terminal's master, or -1."""
    channel.settimeout(SETUP_TIMEOUT_S)
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
