"""What must hold of events: what people do is told in the very commit that does it, and nothing waits for the rest."""

from collections.abc import Sequence

from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.processes import EVENTS
from tests.sim.violation import Violation

MOST_EVENTS = EVENTS.in_all + EVENTS.slack + 100 + 50
"""What is kept in all, what is let in beyond it, what comes in one commit before the oldest go, and what people do
while a leader is missing."""


class Commit:
    """One commit: of people, or of the leader."""

    def __init__(self, *, people: bool) -> None:
        self._people = people
        self._events: list[pb.EventStatus] = []
        self._changed: dict[str, kinds.StoredObject | None] = {}
        """What people write, by its id: as it was before."""
        self._others = False

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Takes in one change of it."""
        value = after or before
        if isinstance(value, pb.Event):
            if after is not None:
                self._events.append(value.status)
        elif isinstance(value, pb.Service | pb.Node | pb.Network):
            self._changed[value.meta.id] = before
            self._others = True
        else:
            self._others = True

    def check(self) -> None:
        """Raises Violation."""
        if not self._people:
            if self._events and self._others:
                raise Violation("events hold up nothing", "the leader wrote events together with something else")
            return
        about = {status.about.id: status for status in self._events}
        for name, before in self._changed.items():
            if name not in about:
                raise Violation("told with the change", f"somebody has changed {name}, and no event says so")
            pruned = about[name].reason == "Pruned"
            if pruned and (before is None or not before.meta.stack):
                raise Violation("only a stack is pruned", f"{about[name].about.name} was pruned, and is in no stack")


def check_kept(kept: Sequence[pb.Event]) -> None:
    """Called after each commit that has events. Raises Violation."""
    if len(kept) > MOST_EVENTS:
        raise Violation("events are bounded", f"{len(kept)} are kept, and {MOST_EVENTS} are the most")
    for one in kept:
        if one.status.about.kind == "event":
            raise Violation("events hold up nothing", f"event {one.meta.id} is about an event")
        if not one.status.count or one.status.first_seen > one.status.last_seen:
            raise Violation("events are counted", f"event {one.meta.id} was seen {one.status.count} times")
