"""SCMP_ACT_NOTIFY: the filter's listener goes to the agent at `listenerPath`.

Only the process that loads a filter gets its listener, and from then on each of its calls may wait for the very agent
that has not got it. So another process takes it away, and the loading one makes no call at all until that is done:

    process                                  courier (a fork of the monitor; on the host)
    ───────                                  ───────
                                             connect to the agent
    "my next descriptor will be N"      ──►  whose pid that was, the socket says (SCM_CREDENTIALS)
    seccomp(2): N is the listener
    look at the shared page, again and again pidfd_getfd(N) until it is there
                                             send it to the agent, with the state; close
                                        ◄──  a byte in the shared page
    execve(2)

Specification: config-linux, "The Container Process State".
"""

import array
import contextlib
import errno
import json
import mmap
import os
import select
import socket
import struct
from typing import Any, Final

from runtime import errors, syscalls
from runtime.seccomp.profile import Profile
from runtime.values import frozen

_AGENT_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.001
_LOOKS: Final = 500_000_000
"""Some 20 s of looking at the page: longer than the courier tries."""
_WAITING, _DELIVERED, _FAILED = 0, 1, 2


@frozen
class Courier:
    """The process's end."""

    channel: socket.socket
    page: mmap.mmap

    def announce(self) -> None:
        """Say which descriptor comes next; nothing may be opened between this and the load."""
        following = os.dup(self.channel.fileno())
        os.close(following)
        self.channel.send(struct.pack("i", following))

    def await_delivery(self, listener: int) -> bool:
        """Wait without a system call; whether the agent has the listener."""
        page = self.page
        for _ in range(_LOOKS if listener >= 0 else 0):
            if page[0] != _WAITING:
                break
        return page[0] == _DELIVERED

    def close(self) -> None:
        """Let go of it, in the process that forked both."""
        self.channel.close()
        self.page.close()


def dispatch(profile: Profile, state: dict[str, Any]) -> Courier | None:
    """Fork a courier, if the profile has something to ask; the caller reaps it.

    `state` is the container's (runtime.md, "State"). A pid of 0 in it stands for the process that loads the filter.
    Raises SetupFailed when nobody listens.
    """
    if not profile.notifies:
        return None
    agent = _connect(profile.listener_path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page = mmap.mmap(-1, mmap.PAGESIZE)
    with theirs, agent:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with errors.step("linux.seccomp: fork"):
            pid = _fork_on_the_host()
        if pid == 0:
            _be(theirs, agent, page, profile, state)
    return Courier(channel=ours, page=page)


def _fork_on_the_host() -> int:
    """Outside the container's pid namespace, which a monitor has its children born into."""
    host = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    childrens = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(host, syscalls.CLONE_NEWPID)
    try:
        return os.fork()
    finally:
        syscalls.setns(childrens, syscalls.CLONE_NEWPID)
        os.close(host)
        os.close(childrens)


def _connect(path: str) -> socket.socket:
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        with errors.step(f"linux.seccomp.listenerPath: connect to {path}"):
            agent.connect(path)  # at once or never: a monitor has more to do than to wait for an agent
        agent.settimeout(_AGENT_TIMEOUT_S)
    except BaseException:
        agent.close()
        raise
    return agent


def _be(channel: socket.socket, agent: socket.socket, page: mmap.mmap, profile: Profile, state: dict[str, Any]) -> None:
    """The courier's life. It holds nothing of its parent's, so that nobody waits for it by mistake."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        kept = sorted({channel.fileno(), agent.fileno()})
        for low, high in zip([2, *kept], [*kept, os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(low + 1, high)
        page[0] = _DELIVERED if _deliver(channel, agent, profile, state) else _FAILED
    except OSError:
        page[0] = _FAILED
    finally:
        os._exit(0)


def _deliver(channel: socket.socket, agent: socket.socket, profile: Profile, state: dict[str, Any]) -> bool:
    number, ancillary, _, _ = channel.recvmsg(4, socket.CMSG_SPACE(12))
    if not number:
        return True  # the process has ended, or failed, before it came to that
    pid = struct.unpack_from("iII", ancillary[0][2])[0]
    process = os.pidfd_open(pid)
    listener = _take(process, struct.unpack("i", number)[0])
    told = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": profile.listener_metadata,
        "state": {**state, "pid": state["pid"] or pid},
    }
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))]
    text = json.dumps(told).encode()
    sent = agent.sendmsg([text], rights, socket.MSG_NOSIGNAL)
    agent.sendall(text[sent:])
    agent.close()
    return True


def _take(process: int, number: int) -> int:
    """The listener, as soon as it is there."""
    for _ in range(int(_AGENT_TIMEOUT_S / _POLL_S)):
        with contextlib.suppress(OSError):
            return syscalls.pidfd_getfd(process, number)
        if select.select([process], [], [], _POLL_S)[0]:
            break
    raise OSError(errno.ESRCH, "the filter was not loaded")
