"""The loop that records: it gathers, is bounded, forgets nothing that was not stored, and comes to rest."""

from controlplane.controllers.events import GATHER_MS, MOST_AT_ONCE, MOST_WAITING, Events
from controlplane.core import events, plan
from controlplane.store import snapshots
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

LIMITS = events.Limits(per_namespace=10, in_all=20, slack=2)


class World:
    """A planner over a snapshot that its plans go into."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.editor = snapshots.Editor()
        self.planner = Events("cp1", LIMITS, lambda: self.now_ms)

    def events(self) -> dict[str, pb.Event]:
        return dict(self.editor.snapshot().all(pb.Event))

    def change(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> frozenset[str]:
        """An object changes; the keys that the planner wants to look at."""
        value = after or before
        assert value is not None
        self.editor.replace(kinds.of(value), kinds.key(value), after)
        change = snapshots.Change(kind=kinds.of(value), key=kinds.key(value), before=before, after=after)
        return frozenset(self.planner.keys_of(change, self.editor.snapshot()))

    def decide(self) -> plan.Plan:
        return self.planner.decide(self.editor.snapshot(), frozenset(), self.now_ms)

    def store(self, made: plan.Plan) -> None:
        for change in made.changes:
            before = self.events().get(change.key)
            assert isinstance(change.value, pb.Event)
            change.value.meta.version += 1
            self.change(before, change.value if isinstance(change, plan.Write) else None)
        self.planner.done(frozenset())

    def flush(self) -> None:
        self.now_ms += GATHER_MS
        self.store(self.decide())


def node(number: int = 1, *, state: pb.NodeState.ValueType = pb.NODE_STATE_READY) -> pb.Node:
    made = pb.Node(meta=pb.Meta(id=f"id{number}", name=f"n{number}"))
    made.status.state, made.status.message = state, "lost"
    return made


def test_a_leader_begins_with_its_own_election() -> None:
    world = World()
    world.store(world.decide())
    (event,) = world.events().values()
    assert (event.status.reason, event.status.message) == ("LeaderElected", "cp1 leads")


def test_it_waits_for_more_before_it_writes() -> None:
    world = World()
    world.flush()
    world.now_ms += GATHER_MS
    assert world.change(None, node(1))
    waiting = world.decide()
    assert (waiting.changes, waiting.wake_at) == ((), world.now_ms + GATHER_MS)
    world.now_ms += GATHER_MS // 2
    assert not world.change(None, node(2)), "one look is enough"
    world.now_ms += GATHER_MS // 2
    assert len(world.decide().changes) == 2


def test_nothing_to_tell_is_nothing_to_do() -> None:
    world = World()
    world.flush()
    assert not world.change(None, pb.Image(meta=pb.Meta(name="hello:latest")))
    assert world.decide() == plan.NOTHING


def test_its_own_events_are_no_news() -> None:
    world = World()
    world.flush()
    made = pb.Event(meta=pb.Meta(id="e", name="e", namespace="default"))
    assert not world.change(None, made)
    assert world.decide() == plan.NOTHING


def test_what_was_not_stored_is_planned_again() -> None:
    world = World()
    world.flush()
    world.change(None, node())
    world.now_ms += GATHER_MS
    first = world.decide()
    assert world.decide().changes == first.changes, "a conflict loses nothing"
    world.change(node(), node(state=pb.NODE_STATE_DOWN))
    world.store(first)
    world.flush()
    assert [event.status.reason for event in world.events().values()].count("Joined") == 1
    assert "Down" in {event.status.reason for event in world.events().values()}


def test_a_flood_is_bounded_and_says_so() -> None:
    """What is as it should be makes room for warnings, and what is left out is counted."""
    world = World()
    world.planner = Events("cp1", events.Limits(), lambda: world.now_ms)
    for number in range(MOST_WAITING):
        world.change(None, node(number))
    for number in range(MOST_WAITING):
        world.change(node(number), node(number, state=pb.NODE_STATE_DOWN))
    rounds = 0
    world.now_ms += GATHER_MS
    while (made := world.decide()).changes:
        assert len(made.changes) <= MOST_AT_ONCE + 1
        world.store(made)
        world.now_ms += GATHER_MS
        rounds += 1
    assert rounds == MOST_WAITING // MOST_AT_ONCE
    (lack,) = (event for event in world.events().values() if event.status.reason == "EventsLeftOut")
    assert lack.status.message == f"{MOST_WAITING + 1} events were not recorded: too much happened at once"


def test_too_many_by_whomever_make_it_clear_away() -> None:
    world = World()
    world.flush()
    woken = [
        world.change(None, pb.Event(meta=pb.Meta(id=f"e{number}", name=f"e{number}", namespace="default")))
        for number in range(13)
    ]
    assert [bool(keys) for keys in woken] == [False] * 12 + [True]
    world.store(world.decide())
    assert not LIMITS.exceeded(events.count(world.events().values()))
    assert world.decide() == plan.NOTHING
