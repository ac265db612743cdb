"""What differs between a process that a monitor keeps, and one that a command leaves to whoever called it.

a monitor's                              a command's (`orchrun create`, `exec --detach`)
ends with its parent                     lives on; its parent's caller is its reaper
hears of its start from its parent       hears of it from whoever connects to its gate, a socket in the
                                         container's folder on the host: no path inside leads to it
has descriptors 0, 1 and 2               may be given the next ones too
"""

import os
import signal
import socket

from runtime import errors, protocol, syscalls
from runtime.values import frozen


@frozen
class Terms:
    """The terms of one process."""

    supervised: bool = True
    gate: socket.socket | None = None
    preserved_fds: int = 0
    """How many descriptors from 3 on the program inherits."""
    keeps_groups: bool = False
    """Whether setgroups(2) is denied to it, as in an ordinary user's user namespace."""

    def bind_life(self) -> None:
        """Without its monitor nobody would collect the exit status, so a supervised process goes with it."""
        if self.supervised:
            syscalls.set_parent_death_signal(signal.SIGKILL)

    def await_start(self, parent: socket.socket) -> socket.socket:
        """Wait until the program may run; returns the socket whose end, or last word, tells how that went."""
        listener = self.gate
        if listener is not None:
            parent.close()
            listener.setblocking(True)
            parent, _ = listener.accept()
            listener.close()
        if protocol.receive(parent) is None:
            os._exit(1)  # whoever was to start it has gone
        return parent

    def preserve(self) -> None:
        """The last step before the exec: everything else closes with it."""
        syscalls.close_on_exec_from(3 + self.preserved_fds)
        for fd in range(3, 3 + self.preserved_fds):
            with errors.step(f"preserved descriptor {fd}"):
                os.set_inheritable(fd, True)


SUPERVISED = Terms()
