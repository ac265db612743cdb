"""The last steps before a program runs: who it is, what it may, where it stands, and whether it is there at all.

Shared by a container's first process and by every process that is executed in it later.
"""

import contextlib
import errno
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable
from typing import NoReturn

from runtime import capabilities, devices, errors, lookup, protocol, reaper, syscalls, terminal, users
from runtime.seccomp import filter as filters
from runtime.seccomp.filter import Filter
from runtime.spec import Process, Rlimit
from runtime.terms import Terms


def attempt(become: Callable[[], NoReturn], monitor: socket.socket) -> NoReturn:
    """Become the program, or tell the monitor why not, and end; nothing ever returns into the fork's parent code."""
    try:
        become()
    except errors.ContainerError as error:
        _tell(monitor, error)
    except OSError as error:
        _tell(monitor, errors.SetupFailed.at("container setup", error))
    except BaseException as error:  # noqa: BLE001 - the last door of this process
        _tell(monitor, errors.ContainerError(f"internal error in the container's set-up: {error!r}"))
    finally:
        os._exit(1)


def _tell(monitor: socket.socket, error: errors.ContainerError) -> None:
    with contextlib.suppress(errors.PeerGone):  # then the container is not wanted any more
        protocol.send(monitor, {"error": errors.to_wire(error)})


def run(
    process: Process,
    stdio: tuple[int, int, int],
    monitor: socket.socket,
    terms: Terms,
    wanted: Filter | None,
    last: Callable[[], None] = lambda: None,
    *,
    console: bool,
    init: bool = False,
) -> NoReturn:
    """From the container's root folder to the program. The root must be the container's already.

    `last` is called after the start, just before the program runs.

    `stdio` holds descriptors above 2, or -1 for /dev/null; a terminal takes their place. With `init` this process stays
    as the reaper, and the program is its child.
    """
    identity = users.resolve(process.user)
    master = _set_stdio(process, stdio, identity, console=console)
    _limit_resources(process)
    _become(process, identity, filters.needs(wanted, process), keeps_groups=terms.keeps_groups)
    # The change of user has cleared it.
    terms.bind_life()
    # As the final user: what that user cannot reach, the program could not either.
    _stand_in(process.cwd)
    variables = environment(process, identity)
    path = lookup.find(process.args[0], variables)
    protocol.send(monitor, {"created": True}, [] if master < 0 else [master])
    if master >= 0:
        os.close(master)
    starter = terms.await_start(monitor)
    attempt(lambda: _start(last, path, process, variables, terms, wanted, init=init), starter)


def _start(
    last: Callable[[], None],
    path: str,
    process: Process,
    variables: dict[str, str],
    terms: Terms,
    wanted: Filter | None,
    *,
    init: bool,
) -> NoReturn:
    last()
    _execute(path, process, variables, terms, wanted, init=init)


def adjust_oom_score(process: Process) -> None:
    """Through the host's /proc, so before the root changes."""
    if process.oom_score_adj is None:
        return
    step = errors.step("process.oomScoreAdj (to lower it takes CAP_SYS_RESOURCE on the host)")
    with step, open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(process.oom_score_adj))


def _set_stdio(process: Process, stdio: tuple[int, int, int], identity: users.Identity, *, console: bool) -> int:
    """Put the standard streams in place; returns the terminal's master, or -1."""
    if process.terminal:
        master, slave = terminal.open_pair()
        if process.console_size:
            terminal.resize(master, *process.console_size)
        if console:
            terminal.put_on_console(slave)
        terminal.take_over(slave, identity.uid)
        return master
    _place_stdio(stdio)
    _own_stdio(identity)
    return -1


def _place_stdio(stdio: tuple[int, int, int]) -> None:
    """Duplicate the descriptors to 0, 1 and 2; -1 stands for the container's /dev/null."""
    for target, fd in enumerate(stdio):
        if fd >= 0:
            os.dup2(fd, target)
            continue
        with errors.step("open /dev/null in the container"):
            null = devices.open_null(syscalls.AT_FDCWD, os.O_RDWR)
        os.dup2(null, target)
        os.close(null)


def raise_hard_limits(process: Process) -> None:
    """With the host's privileges (CAP_SYS_RESOURCE), before a user namespace takes them away."""
    for limit in process.rlimits:
        soft, hard = resource.getrlimit(limit.resource)
        if hard != resource.RLIM_INFINITY and (limit.hard > hard or limit.hard == resource.RLIM_INFINITY):
            _set_limit(limit, soft, limit.hard)


def _limit_resources(process: Process) -> None:
    """As late as this, since a small limit would be in the way of the set-up itself."""
    for limit in process.rlimits:
        _set_limit(limit, limit.soft, limit.hard)


def _set_limit(limit: Rlimit, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(limit.resource, (soft, hard))
    except (ValueError, OSError) as error:
        now = resource.getrlimit(limit.resource)
        message = (
            f"process.rlimits: {limit.name} cannot be set to soft {limit.soft}, hard {limit.hard} "
            f"(now {now[0]}, {now[1]}): {error}; raise the limit of the node's agent, or ask for less"
        )
        raise errors.SetupFailed(message, step="process.rlimits", errno=errno.EPERM) from None


def _own_stdio(identity: users.Identity) -> None:
    """Give the process the pipes at 0, 1 and 2, so that it may open /dev/stdout as another user.

    Never anything but pipes: a device, such as a null device of the host, keeps its owner.
    """
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if stat.S_ISFIFO(status.st_mode) and status.st_uid != identity.uid:
            try:
                os.fchown(fd, identity.uid, identity.gid)
            except OSError as error:
                # A pipe that the caller passed may belong elsewhere; of a user who is not mapped, `_become` tells.
                if error.errno not in {errno.EPERM, errno.EINVAL}:
                    raise


def _become(process: Process, identity: users.Identity, still_needed: int, *, keeps_groups: bool) -> None:
    """Change the user and give up every privilege that the configuration does not grant, or that is not needed yet."""
    sets = process.capabilities
    if sets is not None:
        with errors.step("capability bounding set"):
            capabilities.limit_bounding_set(sets)
    if process.no_new_privileges:
        with errors.step("no_new_privs"):
            syscalls.set_no_new_privileges()
    with errors.step(f"become user {identity.uid}, group {identity.gid}"):
        syscalls.set_keep_capabilities(1)
        _change_user(identity, keeps_groups=keeps_groups)
        syscalls.set_keep_capabilities(0)
    if sets is not None:
        with errors.step("capabilities"):
            capabilities.assume(sets, beside=still_needed)
    os.umask(process.user.umask)


def _change_user(identity: users.Identity, *, keeps_groups: bool) -> None:
    if keeps_groups and identity.groups:
        raise errors.InvalidSpec(
            f"process.user.additionalGids: {', '.join(map(str, identity.groups))} cannot be taken in a user namespace "
            "in which setgroups(2) is denied, as in an ordinary user's; leave them out"
        )
    try:
        if not keeps_groups:
            os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EINVAL, "not in the mappings of the user namespace; map it, or be another user") from error


def _stand_in(folder: str) -> None:
    """Change to the working directory, as the final user, and make sure that it is inside the container.

    A path such as /proc/self/fd/7 may lead to a folder of the host (CVE-2024-21626); getcwd(2) then has no path for
    it, or one that starts with "(unreachable)".
    """
    with errors.step(f"process.cwd {folder}"):
        os.chdir(folder)
        if not os.getcwd().startswith("/"):
            raise OSError(errno.ENOENT, "leads out of the container")


def environment(process: Process, identity: users.Identity) -> dict[str, str]:
    """The variables, with HOME from the container's passwd when the configuration has none."""
    found = dict(entry.split("=", 1) for entry in process.env)
    found.setdefault("HOME", identity.home)
    return found


def _execute(
    path: str, process: Process, variables: dict[str, str], terms: Terms, wanted: Filter | None, *, init: bool
) -> NoReturn:
    """Become the program, with clean signals and nothing but 0, 1 and 2 open, unless the terms say otherwise."""
    if init:
        # The filter is the reaper's, too: what the program can trace or write to must not be able to do more.
        reaper.leave_behind(lambda: _load(wanted, process))
    execve = syscalls.prepared_execve(path, process.args, variables)
    terms.preserve()
    # Python ignores these two, and what is ignored stays ignored over an exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Last, since its profile is the program's, and need not allow what the runtime calls.
    _load(wanted, process)
    try:
        execve()
    except OSError as error:
        raise lookup.unexecutable(path, error) from None


def _load(wanted: Filter | None, process: Process) -> None:
    if wanted is not None:
        filters.load(wanted, process)
