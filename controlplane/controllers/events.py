"""Records what becomes of objects, for people to read: the one loop that looks at changes and not at the state.

Three rules. It is best effort: what a leader had not written when it ended, and what happened while nobody led, is not
told, and nothing depends on it. It holds up nobody: it has a pen of its own, waits for more before it writes, and when
too much happens at once it says how much it leaves out. And it says nothing about events themselves, or it would never
come to rest.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable

from controlplane.core import events, happenings, lookup, plan
from controlplane.core.happenings import Happening
from controlplane.store.snapshots import Change, Snapshot
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

KEY = "events"
GATHER_MS = 1_000
"""How long is waited for more after the first."""
MOST_AT_ONCE = 100
MOST_WAITING = 1_000
"""Warnings that wait to be written. What is as it should be waits in half as many places."""


class Events:
    """`leader` is the name of the instance that leads."""

    name = KEY

    def __init__(self, leader: str, limits: events.Limits, now_ms: Callable[[], int]) -> None:
        self._limits = limits
        self._now_ms = now_ms
        self._last_ms = 0
        self._waiting: list[Happening] = [_elected(leader, self._moment())]
        self._planned = 0
        """How many of the first in the queue are in the plan that is being stored."""
        self._left_out = 0
        self._lack_planned = 0
        self._due_ms = 0
        self._kept: set[str] = set()
        """The keys of those that are there."""
        self._counts: Counter[str] = Counter()
        """Of them, by namespace."""

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        if change.kind.message is pb.Event:
            return self._note_event(change)
        resting = not self._waiting
        for one in happenings.of_change(
            change.before, change.after, lambda node_id: lookup.node_name(snapshot, node_id)
        ):
            self._take(dataclasses.replace(one, at_ms=self._moment()))
        # While others wait, a moment for all of them is set already: a look at each would be for nothing.
        return [KEY] if resting and self._waiting else []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        known = snapshot.all(pb.Event)
        self._kept, self._counts = set(known), events.count(known.values())
        return [KEY]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - there is one key
        known = snapshot.all(pb.Event)
        self._planned = self._lack_planned = 0
        too_many = self._limits.exceeded(self._counts)
        if not self._waiting and not too_many:
            return plan.NOTHING
        if now_ms < self._due_ms and not too_many:
            return plan.Plan(wake_at=self._due_ms)
        self._planned, self._lack_planned = min(len(self._waiting), MOST_AT_ONCE), self._left_out
        writes = events.record([*self._waiting[: self._planned], *self._lack(now_ms)], known)
        written = {write.key for write in writes}
        removals = [one for one in events.trim(known, self._limits, now_ms) if one.key not in written]
        # More may come while this is stored.
        return plan.Plan(changes=(*writes, *removals), wake_at=now_ms + GATHER_MS)

    def done(self, keys: frozenset[str]) -> None:  # noqa: ARG002 - there is one key
        """What was planned is stored: forget it."""
        if not self._planned:
            return
        del self._waiting[: self._planned]
        self._left_out -= self._lack_planned
        self._planned = self._lack_planned = 0
        self._due_ms = self._now_ms() + GATHER_MS

    def _take(self, told: Happening) -> None:
        """Behind the others, or nowhere: what stands in front may be on its way into the store."""
        if len(self._waiting) >= (MOST_WAITING if told.warning else MOST_WAITING // 2):
            self._left_out += 1
            return
        if not self._waiting:
            self._due_ms = self._now_ms() + GATHER_MS
        self._waiting.append(told)

    def _moment(self) -> int:
        """Now; never the same twice, so that events can be put into the order in which they were noticed."""
        self._last_ms = max(self._now_ms(), self._last_ms + 1)
        return self._last_ms

    def _lack(self, now_ms: int) -> Iterable[Happening]:
        if self._left_out:
            text = f"{self._left_out} events were not recorded: too much happened at once"
            yield Happening(about=_CLUSTER, reason="EventsLeftOut", message=text, warning=True, at_ms=now_ms)

    def _note_event(self, change: Change) -> Iterable[str]:
        """Keeps count, whoever has written it; by keys, since what was counted already may be told of once more."""
        event = change.after or change.before
        assert event is not None, "a change is of an object"
        key, was_there = kinds.key(event), len(self._kept)
        if change.after is not None:
            self._kept.add(key)
        else:
            self._kept.discard(key)
        self._counts[event.meta.namespace] += len(self._kept) - was_there
        return [KEY] if change.before is None and self._limits.exceeded(self._counts) else []


_CLUSTER = pb.EventObject(kind="cluster", name="cluster")


def _elected(leader: str, now_ms: int) -> Happening:
    return Happening(about=_CLUSTER, reason="LeaderElected", message=f"{leader} leads", at_ms=now_ms)
