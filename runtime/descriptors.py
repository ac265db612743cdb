"""What a process has open, for processes that live long and must not leak."""

import contextlib
import os
from collections.abc import Iterator


def now_open() -> set[int]:
    """The descriptors of this process."""
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    return {fd for fd in listed if _is_open(fd)}  # without the listing's own


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def close_others(kept: set[int]) -> None:
    """Close all descriptors but these. Nothing else may be there that will close one of them."""
    for fd in now_open() - kept:
        os.close(fd)


@contextlib.contextmanager
def nothing_left_after_failure() -> Iterator[None]:
    """Close what was opened meanwhile, wherever that was, when the block fails."""
    kept = now_open()
    try:
        yield
    except BaseException:
        close_others(kept)
        raise
