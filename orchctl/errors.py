"""What can go wrong, as a person is told about it: one line, the details, a hint; never a traceback.

OrchctlError            exit 1
├── Unreachable         nobody answers at the server's address
├── Refused             the server said no; may name the leader, who could say yes
│   ├── NotFound        there is no such object
│   └── Outdated        somebody else has changed the object since it was read
├── NotDone             what was asked for is not there yet when the time is over
├── NotCompared         exit 2: `diff` could not compare; its exit code 1 says that there are differences
├── Interrupted         exit 130: Ctrl-C
└── InvalidInput        exit 2: what was typed or written makes no sense
"""

# ruff: noqa: N818 - the names say what happened

from collections.abc import Sequence
from typing import ClassVar

FAILED = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell reports of a program whose reader went away."""


class OrchctlError(Exception):
    """`message` is one line; `details` are further lines; `hint` says what to do."""

    exit_code: ClassVar[int] = FAILED

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)


class Unreachable(OrchctlError):
    """Nobody answers. Waiting and trying again may help."""


class Refused(OrchctlError):
    """The server's own answer. `leader` is an address when only the leader can do it."""

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = (), leader: str = "") -> None:
        super().__init__(message, hint=hint, details=details)
        self.leader = leader


class StoreSilent(Refused):
    """A control plane answers, and its store does not. Waiting and trying again may help."""


class NotFound(Refused):
    """There is no such object."""


class Outdated(Refused):
    """Look again, and repeat the change on what is there now."""


class NotDone(OrchctlError):
    """The time is over. The cluster goes on trying."""


class NotCompared(OrchctlError):
    """`diff` has no answer."""

    exit_code: ClassVar[int] = USAGE


class Interrupted(OrchctlError):
    """Ctrl-C, with something worth saying about it."""

    exit_code: ClassVar[int] = INTERRUPTED


class ReaderGone(OrchctlError):
    """The pipe behind standard output is closed, as `head` does when it has enough."""

    exit_code: ClassVar[int] = BROKEN_PIPE


class InvalidInput(OrchctlError):
    """Nothing was done, because what was asked for cannot be meant."""

    exit_code: ClassVar[int] = USAGE
