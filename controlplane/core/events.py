"""How events are kept: equal ones are counted, and the oldest make way.

Two rules. Events are for people, and nothing is decided by them. And they are bounded by number and by age, which is
looked at when one is written and at no other time: an idle cluster keeps what it has, and writes nothing.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.core import happenings, plan
from controlplane.core.happenings import Happening
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

WINDOW_MS = 600_000
"""What happens again within this time is the same event, counted. Later the count begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept. `slack` more are let in before the oldest go, so that not each event costs another one's removal.

    Example: 1,000 in a namespace and a slack of 100 → the 1,101st makes the oldest 101 go.
    """

    per_namespace: int = 1_000
    in_all: int = 5_000
    slack: int = 100
    age_ms: int = 3 * 86_400_000

    def exceeded(self, counts: Mapping[str, int]) -> bool:
        """Whether some have to go. `counts`: how many there are, by namespace."""
        most = max(counts.values(), default=0)
        return most > self.per_namespace + self.slack or sum(counts.values()) > self.in_all + self.slack


def namespace_of(about: pb.EventObject) -> str:
    """Where the events about an object are."""
    return about.namespace or kinds.CLUSTER_NAMESPACE


def of_person(
    value: kinds.StoredObject, reason: str, message: str, *, actor: str, suffix: str, now_ms: int
) -> pb.Event:
    """What a person did to an object. Each has an id of its own: who did what is not counted together."""
    told = Happening(about=happenings.about(value), reason=reason, message=happenings.cut(message), at_ms=now_ms)
    return _new(told, f"{told.about.name}.{suffix}", actor)


def record(told: Iterable[Happening], known: Mapping[str, pb.Event]) -> tuple[plan.Write, ...]:
    """The events to write for what has happened, in order. `known`: those that are there, by key."""
    written: dict[str, pb.Event] = {}
    for one in told:
        fresh = _new(one, f"{one.about.name}.{_digest(one)}", "")
        key = kinds.key(fresh)
        before = written.get(key) or known.get(key)
        written[key] = _counted(before, fresh) if before is not None else fresh
    return tuple(plan.Write(value=event, why=event.status.reason) for event in written.values())


def trim(known: Mapping[str, pb.Event], limits: Limits, now_ms: int) -> tuple[plan.Remove, ...]:
    """The events that go: what is too old, and the oldest where there are too many."""
    doomed = {key for key, event in known.items() if event.status.last_seen < now_ms - limits.age_ms}
    young = {key: event for key, event in known.items() if key not in doomed}
    if limits.exceeded(count(young.values())):
        doomed |= _too_many(young, limits)
    return tuple(plan.Remove(value=known[key], why="too old, or one of too many") for key in sorted(doomed))


def _too_many(there: Mapping[str, pb.Event], limits: Limits) -> set[str]:
    """The oldest of each namespace that has too many, then the oldest of all that are left when these are too many."""
    doomed: set[str] = set()
    ordered = sorted(there, key=lambda key: (there[key].status.last_seen, key))
    by_namespace: dict[str, list[str]] = defaultdict(list)
    for key in ordered:
        by_namespace[there[key].meta.namespace].append(key)
    for keys in by_namespace.values():
        if len(keys) > limits.per_namespace + limits.slack:
            doomed.update(keys[: len(keys) - limits.per_namespace])
    left = [key for key in ordered if key not in doomed]
    if len(left) > limits.in_all + limits.slack:
        doomed.update(left[: len(left) - limits.in_all])
    return doomed


def count(known: Iterable[pb.Event]) -> Counter[str]:
    """How many there are, by namespace."""
    return Counter(event.meta.namespace for event in known)


def _digest(told: Happening) -> str:
    """Equal for what is counted as the same."""
    words = (told.about.kind, told.about.id, told.reason, told.message)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def _new(told: Happening, name: str, actor: str) -> pb.Event:
    return pb.Event(
        meta=pb.Meta(id=name, name=name, namespace=namespace_of(told.about), generation=1, created_at=told.at_ms),
        status=pb.EventStatus(
            about=told.about,
            type=pb.EVENT_TYPE_WARNING if told.warning else pb.EVENT_TYPE_NORMAL,
            reason=told.reason,
            message=told.message,
            count=1,
            first_seen=told.at_ms,
            last_seen=told.at_ms,
            actor=actor,
        ),
    )


def _counted(before: pb.Event, fresh: pb.Event) -> pb.Event:
    """Once more the same; from one on when the last time was long ago."""
    again = plan.copy(before)
    if fresh.status.last_seen - before.status.last_seen > WINDOW_MS:
        again.status.CopyFrom(fresh.status)
    else:
        again.status.count += 1
        # Another leader's clock may be behind.
        again.status.last_seen = max(fresh.status.last_seen, before.status.last_seen)
    return again
