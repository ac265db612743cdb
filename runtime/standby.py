"""A monitor without a container: it waits for one at its channel, already forked and settled."""

import os
import socket
from typing import NoReturn

from runtime import monitor, protocol, scripted, supervisor
from runtime.script import machine


def run(channel: int, root: str, memory: machine.Memory) -> NoReturn:
    """Serve one request: a container that the launcher made, or one to make. Ends when the channel does.

    Each line of Python that a monitor executes costs it pages of its own for its life, so this and `scripted` say
    things shortly, to the C of the standard library where they can.
    """
    try:
        os.setsid()
        name = os.open("/proc/self/comm", os.O_WRONLY)
        os.write(name, b"orch-monitor")
        os.close(name)
        prepared = supervisor.prepare()
        connection = socket.SocketType(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, channel)
        packet, fds = protocol.receive_packet(connection)
        if packet[:1] == scripted.KIND:
            scripted.run(packet, fds, connection, root, memory, prepared)
        connection.close()
        if packet:
            message = protocol.message(packet, fds)
            client, launcher, *stdio = message.fds
            monitor.run(message.body, root, tuple(stdio), monitor.Reporter(client, launcher), prepared)
    finally:
        os._exit(0)
