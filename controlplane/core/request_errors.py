"""What can be wrong with a request; the type says what the caller does next.

RequestError
├── Invalid           change the request: what it says is wrong
├── Unknown           name another object: there is none of that name
├── NotNow            change the object's state first: it does not allow this now
│   └── NotLeader     ask the leader, which `leader` names
├── Outdated          look again: somebody else changed the object since it was read
├── Unidentified      show a certificate that this cluster believes
├── Forbidden         ask somebody whose role allows it
├── Overloaded        ask for less, or more slowly
├── TooLate           look what has become of it: it took longer than anything may take
└── NotReachable      retry later: the store or a node is out of reach

Each message is one line that names the object and the place; `hint` is the remedy. `api/errors.py` turns them into
gRPC status codes.
"""

# ruff: noqa: N818 - an error is named after what happened; the type says what to do

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One of several mistakes: the object (`Service default/hello`), the path in it, and what is wrong there."""

    object: str
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.object}: {self.path}" if self.path else self.object
        return f"{place}: {self.message}"


class RequestError(Exception):
    """Why a request is not carried out. Nothing was written."""

    def __init__(self, message: str, *, hint: str = "", mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.mistakes = tuple(mistakes)


class Invalid(RequestError):
    """What the request says is wrong, whatever the state of the cluster."""


class Unknown(RequestError):
    """There is no such object."""


class NotNow(RequestError):
    """The present state of the object, or of the cluster, does not allow it."""


class NotLeader(NotNow):
    """Only the leader can answer this. `leader` is its address; empty while nobody leads."""

    def __init__(self, what: str, leader: str) -> None:
        where = f"ask the leader at {leader}" if leader else "nobody leads at the moment; try again in a few seconds"
        super().__init__(f"{what} is answered by the leader, and this instance does not lead", hint=where)
        self.leader = leader


class Outdated(RequestError):
    """The object has changed since the caller read it."""


class Unidentified(RequestError):
    """Whoever calls has shown no certificate that is worth anything here."""


class Forbidden(RequestError):
    """The caller's role does not allow it."""


class Overloaded(RequestError):
    """A bound was reached. `retry_after_ms`: when coming back may help; 0: nobody knows."""

    def __init__(self, message: str, *, hint: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_ms = retry_after_ms


class TooLate(RequestError):
    """What was asked for took longer than anything may take."""


class NotReachable(RequestError):
    """Something that is needed does not answer at the moment."""


def of_mistakes(error: type[RequestError], mistakes: Sequence[Mistake], *, hint: str = "") -> RequestError:
    """One error for all mistakes: a single one is the message itself."""
    assert mistakes, "an error needs at least one mistake"
    others = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return error(f"{mistakes[0]}{others}", hint=hint, mistakes=mistakes)
