"""The zygote: a fork of the launcher, warm and frozen, that forks and does nothing else.

    packet                                descriptors      the fork
    b"S"                                  channel          stands by as a monitor (`standby`)
    a request, as the launcher got it     report           makes a network namespace, and replies

The launcher does its work in its own memory, which stays its own since it never forks; a monitor's memory is the
zygote's but for what it touches. Rule: whatever the zygote itself touches between two forks it has to copy, too, so it
does as little as can be.
"""

import contextlib
import gc
import os
import select
import socket
from typing import Any, Final, NoReturn

from runtime import errors, netns, protocol, standby, syscalls
from runtime.script import machine

_STAND_BY: Final = b"S"
_NAME: Final = "orch-zygote"


def ask(requests: socket.socket, body: dict[str, Any] | None, fd: int) -> None:
    """For the launcher: have a request served, or without one a monitor forked. Raises PeerGone."""
    if body is None:
        protocol.send_packet(requests, _STAND_BY, [fd])
    else:
        protocol.send(requests, body, [fd])


def run(requests: socket.socket, signals: int, root: str, memory: machine.Memory) -> NoReturn:
    """Serve until the launcher has gone. `signals` tells of SIGCHLD."""
    try:
        gc.disable()  # nothing here is cyclic, and a collection would unshare the pages
        os.umask(0o022)  # it may be forked again later, while the launcher makes something
        syscalls.set_process_name(_NAME)
        waiting = select.poll()
        waiting.register(requests.fileno(), select.POLLIN)
        waiting.register(signals, select.POLLIN)
        while True:
            for fd, _ in waiting.poll():
                if fd == signals:
                    _reap(signals)
                elif not _serve(requests, signals, root, memory):
                    os._exit(0)
    finally:
        os._exit(0)


def _reap(signals: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(signals, 128 * 16)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _serve(requests: socket.socket, signals: int, root: str, memory: machine.Memory) -> bool:
    packet, fds = protocol.receive_packet(requests)
    if not packet:
        return False
    # Where no process can be had, the descriptors' ends tell the launcher.
    with contextlib.suppress(OSError):
        if os.fork() == 0:
            # The launcher must see when the zygote ends, and the zygote when the launcher does.
            requests.close()
            os.close(signals)
            if packet == _STAND_BY:
                standby.run(fds[0], root, memory)
            _make_netns(protocol.message(packet, fds))
    for fd in fds:
        os.close(fd)
    return True


def _make_netns(message: protocol.Message) -> NoReturn:
    number: Any = message.body.get("id")
    reply = protocol.ok(number)
    try:
        netns.create(netns.parse(message.body))
    except errors.ContainerError as error:
        reply = protocol.failed(number, error)
    finally:
        os.write(message.fds[0], protocol.encode(reply))
        os._exit(0)
