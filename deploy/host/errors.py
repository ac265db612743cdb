"""What goes wrong on the way to a role in a cluster.

HostError           something to tell the person, in one line, with what to do about it
"""


class HostError(Exception):
    """`str()` is the line to print; `hint` is the remedy; `detail` is more to read, such as the end of a log."""

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail
