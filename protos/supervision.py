"""What a program says to the service manager that has started it: that it is ready, and again and again that it lives.

The protocol is sd_notify(3)'s: lines of `NAME=value` in a datagram to the Unix socket that $NOTIFY_SOCKET names. Two
rules: without a service manager nothing is said and nothing is missing; and what is started from here does not inherit
the socket, since only this process speaks for the service.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping

_SOCKET, _PERIOD, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
_US_PER_S = 1_000_000


class Supervisor:
    """The service manager, if there is one. Takes its variables out of the environment."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = _address(environment.pop(_SOCKET, ""))
        period, pid = environment.pop(_PERIOD, ""), environment.pop(_PID, "")
        meant = not pid or pid == str(os.getpid())
        self.watchdog_s = int(period) / _US_PER_S if meant and period.isdigit() else 0.0
        """It wants to hear at least this often that the program is alive; 0: it does not."""

    @property
    def present(self) -> bool:
        """Whether this program is a service of a service manager's."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Says something, such as `READY=1`. A manager that cannot be reached now is no reason to end."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link,
        ):
            link.sendto("\n".join(lines).encode(), self._address)

    async def run(self, status: str) -> None:
        """Says that the program is ready, and then that it lives, as long as the loop that runs this turns."""
        self.tell("READY=1", f"STATUS={status}")
        while self.watchdog_s:
            # Twice in each period, as sd_watchdog_enabled(3) advises.
            await asyncio.sleep(self.watchdog_s / 2)
            self.tell("WATCHDOG=1")

    def stopping(self) -> None:
        """Says that the program ends as it was asked to."""
        self.tell("STOPPING=1")


def _address(said: str) -> str:
    """An @ in front stands for the null byte of an abstract socket (unix(7))."""
    return f"\0{said[1:]}" if said.startswith("@") else said
