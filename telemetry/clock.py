"""Whether something keeps this machine's clock right. For the doctors of machines; nothing is decided by it."""

import ctypes
import os

_TIME_ERROR = 5


def is_kept() -> bool:
    """Whether the kernel was told lately that its clock is right, by an NTP client for one (adjtimex(2)).

    Raises OSError where the question is forbidden.
    """
    buffer = ctypes.create_string_buffer(512)  # struct timex, all 0: only a question
    said: int = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if said < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "adjtimex")
    return said != _TIME_ERROR
