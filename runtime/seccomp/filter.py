"""What a process does about its filter: fetch the program while it sees the host, load it right before its exec."""

import errno
from typing import Any, Final

from runtime import capabilities, errors, syscalls
from runtime.seccomp import cache, notify
from runtime.seccomp.profile import FLAGS, Profile
from runtime.spec import Process
from runtime.values import frozen

SYS_ADMIN: Final = capabilities.mask(("CAP_SYS_ADMIN",))
_NEW_LISTENER: Final = 1 << 3
_TSYNC_ESRCH: Final = 1 << 4
_TSYNC: Final = FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]
_WAIT_KILLABLE: Final = FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]


@frozen
class Filter:
    """A program that waits for its moment."""

    profile: Profile
    program: bytes
    courier: notify.Courier | None


@frozen
class Order:
    """What a process that is about to be forked must know of its filter. `root` is the state folder on the host."""

    profile: Profile
    root: str
    courier: notify.Courier | None

    def fetch(self) -> Filter:
        """For the process: get the program, while the host's files can be seen."""
        return Filter(profile=self.profile, program=cache.program(self.profile, self.root), courier=self.courier)

    def close(self) -> None:
        """For its parent: let go of what the process has now."""
        if self.courier is not None:
            self.courier.close()


def order(profile: Profile | None, root: str, state: dict[str, Any]) -> Order | None:
    """Prepare a filter before the fork of its process, and before a pid namespace is made for that.

    `state` goes to the agent of a profile that asks one; see `notify.dispatch`.
    """
    if profile is None:
        return None
    return Order(profile=profile, root=root, courier=notify.dispatch(profile, state))


def needs(wanted: Filter | None, process: Process) -> int:
    """The capabilities that the process must keep until the filter is loaded, as a mask.

    A filter could make a setuid program believe that it has dropped its privileges, so the kernel takes one only from
    a process that can gain none by an exec, or that has CAP_SYS_ADMIN.
    """
    return 0 if wanted is None or process.no_new_privileges else SYS_ADMIN


def load(wanted: Filter, process: Process) -> None:
    """The last thing before the exec. What it calls after the load is capset(2), if it had to keep a capability."""
    final = process.capabilities or capabilities.held()
    kept = needs(wanted, process)
    if kept:
        capabilities.exercise(kept)
    with errors.step(_step(wanted.profile, kept)):
        _load(wanted)
    if kept:
        with errors.step("linux.seccomp: give up CAP_SYS_ADMIN; without noNewPrivileges a profile must allow capset"):
            capabilities.give_up(final)


def _load(wanted: Filter) -> None:
    flags = wanted.profile.flags
    if wanted.courier is None:
        syscalls.seccomp_load(wanted.program, flags_without_listener(wanted.profile))
        return
    if flags & _TSYNC:
        flags |= _TSYNC_ESRCH  # or the result could be a thread's number
    wanted.courier.announce()
    listener = syscalls.seccomp_load(wanted.program, flags | _NEW_LISTENER)
    if not wanted.courier.await_delivery(listener):
        raise OSError(errno.EPIPE, f"nobody took the listener at {wanted.profile.listener_path}")


def flags_without_listener(profile: Profile) -> int:
    """The flags of seccomp(2), but for the one that says how a listener is waited for."""
    return profile.flags & ~_WAIT_KILLABLE


def _step(profile: Profile, kept: int) -> str:
    flags = ", ".join(name for name, bit in FLAGS.items() if profile.flags & bit)
    need = "; without process.noNewPrivileges it needs CAP_SYS_ADMIN" if kept else ""
    return f"linux.seccomp: load the filter (flags: {flags or 'none'}){need}"
