"""What a process has open, for processes that live long and must not leak."""

import contextlib
import os
from collections.abc import Iterator


def now_open() -> set[int]:
    """The descriptors of this process, with the one that this listing itself uses."""
    return {int(name) for name in os.listdir("/proc/self/fd")}


def close_others(kept: set[int]) -> None:
    """Close all descriptors but these. Nothing else may be there that will close one of them."""
    for fd in now_open() - kept:
        with contextlib.suppress(OSError):  # the listing's own
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
