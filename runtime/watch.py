"""Descriptors that are waited for, each with what is called when it can be read (epoll(7), level-triggered).

The standard library's selectors do the same; a monitor, whose every page is its own, is spared their objects.
"""

import contextlib
import select
from collections.abc import Callable


class Watch:
    """All that one process waits for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], object]] = {}

    def add(self, fd: int, callback: Callable[[], object]) -> None:
        """Call this whenever the descriptor can be read, or has ended."""
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        """Not any more."""
        del self._callbacks[fd]
        with contextlib.suppress(OSError):  # whoever closed it has taken it away
            self._epoll.unregister(fd)

    def wait(self) -> None:
        """Wait until there is something, and call for all of it."""
        ready = [(fd, self._callbacks.get(fd)) for fd, _ in self._epoll.poll()]
        for fd, callback in ready:
            # An earlier one of this round may have closed it, and its number may be another's by now.
            if callback is not None and self._callbacks.get(fd) is callback:
                callback()
