# ruff: noqa: N818 - the types are named after what is wrong, as the design's vocabulary has them
"""Everything that a step of a task can fail at. The type says what to do next.

AgentError
├── Temporary       the world was not ready: try the same step again later
├── Refused         this task cannot be run here as it is: tell the user, give it up
├── StartFailed     the container's first process could not be started: counts as an exit, restarts apply
└── NoSuchTask      nothing by that name runs here: tell whoever asked
"""


class AgentError(Exception):
    """The root of the tree. `reason` is one word for programs; the text is one sentence for people."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Temporary(AgentError):
    """Try again later."""

    def __init__(self, message: str, *, reason: str = "Waiting") -> None:
        super().__init__(message, reason=reason)


class Refused(AgentError):
    """The task cannot be run as it is; the message names the remedy."""


class StartFailed(AgentError):
    """The first process did not come up; `exit_code` is what a shell would say (127, 126, else 125)."""

    def __init__(self, message: str, *, exit_code: int, reason: str = "StartFailed") -> None:
        super().__init__(message, reason=reason)
        self.exit_code = exit_code


class NoSuchTask(AgentError):
    """There is no such task, or it has no running container."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="NoSuchTask")
