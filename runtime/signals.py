"""Signals: their names and numbers, and giving every one of them its default action."""

import signal
from typing import Final

from runtime import errors, syscalls

_OF_THE_C_LIBRARY: Final = (32, 33)
"""Signals that Python does not know. The C library's posix_spawn, by which make starts programs, leaves them ignored,
and what is ignored stays so through every exec, into the containers."""


def reset() -> None:
    """The default action for all, but for the two that the interpreter needs ignored (`program` resets those)."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        signal.signal(number, signal.SIG_DFL)
    for unnamed in _OF_THE_C_LIBRARY:
        syscalls.set_default_action(unnamed)


def number_of(word: str) -> int:
    """A signal by number or by name: "9", "KILL", "sigkill", "RTMIN+3"; raises InvalidSpec."""
    if word.isascii() and word.isdigit() and 0 <= int(word) <= signal.SIGRTMAX:
        return int(word)
    name, plus, offset = word.upper().removeprefix("SIG").partition("+")
    found = getattr(signal, f"SIG{name}", None)
    number = int(found) if isinstance(found, signal.Signals) else 0
    if plus and offset.isascii() and offset.isdigit() and name == "RTMIN":
        number += int(offset)
    elif plus:
        number = 0
    if not 0 < number <= signal.SIGRTMAX:
        raise errors.InvalidSpec(f"signal: {word!r} is none; give a name such as TERM, or a number")
    return number
