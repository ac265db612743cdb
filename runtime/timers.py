"""Timers as descriptors, timerfd_create(2), which Python has from 3.13 on."""

import ctypes
import os
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK  # TFD_CLOEXEC and TFD_NONBLOCK are the same bits
_AT_A_MOMENT: Final = 1  # TFD_TIMER_ABSTIME
_SECOND_NS: Final = 1_000_000_000


def create(clock: int) -> int:
    """A timer of a clock such as `time.CLOCK_BOOTTIME`; it cannot be read until it has been set and that is over."""
    return _checked("timerfd_create", _libc.timerfd_create(clock, _FLAGS))


def set_once(timer: int, at_ns: int) -> None:
    """Let it go off at a moment of its clock, and at once when that is over. What was set before is forgotten."""
    once = struct.pack("4l", 0, 0, *divmod(at_ns, _SECOND_NS))
    _checked("timerfd_settime", _libc.timerfd_settime(timer, _AT_A_MOMENT, once, None))


def _checked(call: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
