"""The steps of a creation that are the same for every parent: a monitor, or a command that goes away (`unattended`).

One rule: each step undoes what it did when it fails, so that whoever calls one needs to undo only the others.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

from runtime import cgroups, errors, protocol, spec, state, syscalls

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
    """The caller stays where it is; its children are born into the namespace, the first as its process 1."""
    for namespace in wanted.namespaces:
        if namespace.kind != "pid":
            continue
        with errors.step("linux.namespaces: pid"):
            if not namespace.path:
                syscalls.unshare(syscalls.CLONE_NEWPID)
                return
            fd = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
            syscalls.setns(fd, syscalls.CLONE_NEWPID)
            os.close(fd)


def await_created(channel: socket.socket, *, started: bool) -> int:
    """Wait until the first process is ready, or runs its program; returns the terminal's master, or -1."""
    channel.settimeout(SETUP_TIMEOUT_S)
    try:
        message = protocol.receive(channel)
        if message is None:
            raise errors.SetupFailed("the first process was killed during setup; is the memory limit too low?")
        raise_error(message)
        master = message.fds[0] if message.fds else -1
        if started:
            ended = protocol.receive(channel)
            if ended is not None:
                raise_error(ended)
    except TimeoutError:
        raise errors.SetupFailed(f"the container was not set up within {SETUP_TIMEOUT_S:.0f} s") from None
    return master


def raise_error(message: protocol.Message) -> None:
    """Raise what a process that is being set up has told, if it was an error."""
    if "error" in message.body:
        raise errors.from_wire(message.body["error"])
