"""What a planner answers: a list of changes that can be printed, and when to ask again.

Two rules. A planner never alters what it was given: it copies, changes the copy and puts that into the plan. And a
change names the version that it was made from, so that it cannot overwrite what somebody else wrote meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from protos import kinds

T = TypeVar("T", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Store `value`. Its `meta.version` is the version that must be there now; 0 = there must be none."""

    value: kinds.StoredObject
    why: str

    @property
    def key(self) -> str:
        return kinds.key(self.value)

    def describe(self) -> str:
        verb = "write" if self.value.meta.version else "create"
        return f"{verb} {kinds.label(self.value)}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove the object, which must be at `value.meta.version`."""

    value: kinds.StoredObject
    why: str

    @property
    def key(self) -> str:
        return kinds.key(self.value)

    def describe(self) -> str:
        return f"remove {kinds.label(self.value)}: {self.why}"


Change = Write | Remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Changes in order, and the moment (milliseconds since 1970) at which to plan again even if nothing happens."""

    changes: tuple[Change, ...] = ()
    wake_at: int | None = None

    def describe(self) -> str:
        return "\n".join(change.describe() for change in self.changes) or "nothing to do"


NOTHING = Plan()


def join(plans: Iterable[Plan]) -> Plan:
    """One plan of several that touch different objects."""
    parts = list(plans)
    keys = [change.key for part in parts for change in part.changes]
    assert len(keys) == len(set(keys)), "two plans change one object"
    return Plan(
        changes=tuple(change for part in parts for change in part.changes),
        wake_at=earliest(part.wake_at for part in parts),
    )


def earliest(moments: Iterable[int | None]) -> int | None:
    """The first of the moments; None when there is none."""
    return min((moment for moment in moments if moment is not None), default=None)


def copy(value: T) -> T:
    """A copy to change. What came out of a cache is never changed itself."""
    fresh = type(value)()
    fresh.CopyFrom(value)
    return fresh
