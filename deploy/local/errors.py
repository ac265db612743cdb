"""What goes wrong with a local cluster.

LocalError          something to tell the person, in one line, with what to do about it
└── Taken           the cluster's name is another's
"""


class LocalError(Exception):
    """`str()` is the line to print; `hint` is the remedy; `detail` is more to read, such as the end of a log."""

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail
        if detail:
            self.add_note(detail)  # for who gets a traceback, as tests do


class Taken(LocalError):  # noqa: N818 - the name says what happened
    """Another cluster on this machine is called so."""
