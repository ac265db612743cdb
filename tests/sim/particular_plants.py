"""Bugs about what people ask for in particular (see `particulars`), to be planted as those in `plants`."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from controlplane.core import amounts, dependencies, neighbourhood, replacing, revisions, slots
from controlplane.core import ask as asking
from controlplane.core import fleet as fleets
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.neighbour_rules import NEIGHBOURS
from tests.sim.planting import Plant, instead
from tests.sim.update_rules import BLUE_AND_GREEN, MISSING

_right_amount = amounts.of


def _stop_the_next(self: replacing.Course, working: Sequence[slots.Slot], quota: int) -> object:
    """So many are stopped as may be missing, and then so many again: who is missing already is not asked."""
    beside = self.policy.surge - sum(bool(slot.new and slot.old) for slot in self.members)
    begun = [slot for slot in working if not slot.stopping][: max(min(beside, quota), 0)]
    ended = [slot.old[0] for slot in working if slot not in begun][: max(min(self.policy.missing, quota), 0)]
    return ended, begun, None


def _rounded_up(text: str, whole: int, *, up: bool) -> int:
    """A part of a task is a task."""
    del up
    return _right_amount(text, whole, up=True)


def _own_wishes(fleet: fleets.Fleet, ask: asking.Ask, *, own: bool) -> Iterator[tuple[str, str, Mapping[int, int]]]:
    """Who asks for it has to be apart; who is there is not asked."""
    for one in ask.apart:
        if not one.weight and (own or one.service != ask.service):
            yield one.service, one.by, fleet.neighbours((ask.namespace, one.service)).present


def _nobody_is_there(fleet: fleets.Fleet, ask: asking.Ask, affinity: asking.Affinity) -> bool:
    """As long as there is nobody to be near to, anywhere is as good."""
    return not any(neighbourhood.company(fleet, ask, affinity).values())


def _has_ended(place: Collection[pb.Task]) -> bool:
    """What is over is completed."""
    return all(states.is_terminal(task.status.state) for task in place)


PARTICULAR_PLANTS = (
    Plant(
        name="who is missing already does not count in an update",
        bug=instead(replacing.Course, "_take", _stop_the_next),
        caught_by=frozenset({MISSING}),
        hint=40_002,
    ),
    Plant(
        name="what may be missing is rounded up",
        bug=instead(amounts, "of", _rounded_up),
        caught_by=frozenset({MISSING}),
        hint=40_025,
    ),
    Plant(
        name="blue goes as soon as its green works",
        bug=instead(replacing.Course, "_waits_for_all", lambda _: False),
        caught_by=frozenset({BLUE_AND_GREEN}),
        hint=40_031,
    ),
    Plant(
        name="who has to be apart from others is joined by them",
        bug=instead(neighbourhood, "_unwanted", _own_wishes),
        caught_by=frozenset({NEIGHBOURS}),
        hint=40_013,
    ),
    Plant(
        name="who has to be near to nobody yet goes anywhere",
        bug=instead(neighbourhood, "is_first", _nobody_is_there),
        caught_by=frozenset({NEIGHBOURS}),
        hint=40_015,
    ),
    Plant(
        name="what has ended counts as completed",
        bug=instead(dependencies, "_has_ended_well", _has_ended),
        caught_by=frozenset({"nobody starts too early"}),
        hint=40_020,
    ),
    Plant(
        name="old revisions are kept for ever",
        bug=instead(revisions, "outdated", lambda *_: []),
        caught_by=frozenset({"whole at rest"}),
        hint=40_002,
    ),
)
