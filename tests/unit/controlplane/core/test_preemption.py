"""Others make way for the more urgent: as few as possible, never in vain, never for ever, and within their limits."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import disruption, plan, preemption, scheduler, tasks
from controlplane.core.ask import Ask
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build, golden
from tests.support.build import NOW_MS


def service(name: str, priority: int = 0, replicas: int = 10, **policy: str) -> pb.Service:
    made = build.service(name, replicas)
    made.spec.priority = priority
    made.spec.disruption.CopyFrom(pb.DisruptionPolicy(**(policy or {"max_unavailable": "100%"})))
    return made


def template(cpu: int) -> pb.TaskTemplate:
    return build.template(resources=pb.Resources(reservations=pb.ResourceReservations(cpu=cpu)))


class World:
    """Services with a priority and a size of their tasks, on some nodes."""

    def __init__(self, machines: list[pb.Node], services: dict[str, tuple[pb.Service, int]]) -> None:
        self.machines = machines
        self.rules = scheduler.Rules(services={("default", name): one for name, (one, _) in services.items()})
        self.templates = {name: template(cpu) for name, (_, cpu) in services.items()}
        self.tasks: dict[str, pb.Task] = {}

    def add(self, name: str, slot: int, *, on: str = "", age: int = 0) -> str:
        ident = f"{name}-{slot}"
        state = states.RUNNING if on else states.NEW
        task = build.task(slot, state, of=name, revision_id=name, node=on, ident=ident, created_at=NOW_MS - age)
        self.tasks[ident] = task
        return ident

    def schedule(self) -> plan.Plan:
        waiting = [one for one in self.tasks.values() if not one.node_id and tasks.is_live(one)]
        placed = [one for one in self.tasks.values() if one.node_id]
        made = scheduler.schedule(self.machines, placed, waiting, self.templates, NOW_MS, self.rules)
        for change in made.changes:
            assert isinstance(change.value, pb.Task)
            self.tasks[change.value.meta.id] = change.value
        return made

    def stopped(self) -> list[str]:
        return sorted(name for name, one in self.tasks.items() if one.desired_state == pb.DESIRED_STATE_SHUTDOWN)

    def end(self, name: str) -> None:
        self.tasks[name] = plan.copy(self.tasks[name])
        self.tasks[name].status.state = states.SHUTDOWN


def test_the_fewest_make_way_and_the_urgent_one_follows_when_they_have_ended() -> None:
    world = World(
        [build.node("n1", cpu=1000), build.node("n2", cpu=1000)],
        {"low": (service("low"), 500), "small": (service("small"), 250), "high": (service("high", 5), 500)},
    )
    for slot in (1, 2):
        world.add("low", slot, on="n1")
    for slot in (1, 2, 3, 4):
        world.add("small", slot, on="n2")
    urgent = world.add("high", 1)
    world.schedule()
    assert world.stopped() == ["low-1"], "one is enough on n1, two would have to go on n2"
    assert world.tasks["low-1"].status.reason == "Preempted"
    assert world.tasks[urgent].status.message == "waits for room on node n1, until low-1 has ended"
    assert world.schedule() == plan.NOTHING, "nobody else is stopped meanwhile, and nothing is written again"
    world.end("low-1")
    world.schedule()
    assert world.tasks[urgent].node_id == "n1"


def test_a_task_for_which_room_is_made_is_no_company_yet() -> None:
    """Whoever has to be near to it waits until it is there, since it may still come to be elsewhere."""
    services = {"low": (service("low"), 500), "high": (service("high", 5), 500), "companion": (service("companion"), 1)}
    world = World([build.node("n1", cpu=501)], services)
    world.templates["companion"].placement.near.add(service="high")
    world.add("low", 1, on="n1")
    urgent, companion = world.add("high", 1), world.add("companion", 1)
    world.schedule()
    assert world.stopped() == ["low-1"]
    assert world.tasks[companion].node_id == ""
    said = "no node takes it: 1 node (n1): it has to be near to service high, which has no task on any node"
    assert world.tasks[companion].status.message == said
    world.end("low-1")
    world.schedule()
    assert (world.tasks[urgent].node_id, world.tasks[companion].node_id) == ("n1", "n1")


def test_who_has_to_be_near_to_its_like_joins_one_for_which_room_is_made() -> None:
    """Else each would count as the first, and all would go where there is room by chance."""
    services = {"low": (service("low"), 500), "high": (service("high", 5), 500)}
    world = World([build.node("n1", cpu=1000), build.node("n2", cpu=400)], services)
    world.templates["high"].placement.near.add(service="high", by="node.name")
    for slot in (1, 2):
        world.add("low", slot, on="n1")
        world.add("high", slot)
    world.schedule()
    assert world.stopped() == ["low-1", "low-2"]
    for name in ("low-1", "low-2"):
        world.end(name)
    world.schedule()
    assert {world.tasks[f"high-{slot}"].node_id for slot in (1, 2)} == {"n1"}


def test_a_service_without_a_limit_misses_one_at_a_time_and_who_waits_for_a_node_is_not_missed() -> None:
    """Else a service of a low priority that does not find room for all of its tasks would be spared for ever."""
    low = build.service("low", 4)
    services = {"low": (low, 500), "high": (service("high", 5), 500)}
    world = World([build.node("n1", cpu=1500)], services)
    for slot in (1, 2, 3):
        world.add("low", slot, on="n1", age=slot)
    world.add("low", 4)
    for slot in (1, 2):
        world.add("high", slot)
    for victim, urgent in (("low-1", "high-1"), ("low-2", "high-2")):
        world.schedule()
        world.schedule()
        assert [name for name in world.stopped() if tasks.holds_its_slot(world.tasks[name])] == [victim], (
            "one at a time"
        )
        world.end(victim)
        world.schedule()
        assert world.tasks[urgent].node_id == "n1"
    low.spec.disruption.max_unavailable = "3"
    world.add("high", 3)
    world.schedule()
    assert "low-3" not in world.stopped(), "who has said how many may be missing is taken at their word"
    said = world.tasks["high-3"].status.message
    assert said.endswith("; low would make way, and may not miss so many tasks now")


def test_the_lowest_priority_goes_first_then_the_youngest() -> None:
    services = {
        "low": (service("low", -1), 500),
        "mid": (service("mid"), 500),
        "high": (service("high", 5), 500),
    }
    world = World([build.node("n1", cpu=1500)], services)
    world.add("mid", 1, on="n1")
    world.add("low", 1, on="n1", age=10)
    world.add("low", 2, on="n1", age=5)
    world.add("high", 1)
    world.schedule()
    assert world.stopped() == ["low-2"]


def test_nobody_is_stopped_in_vain_nor_for_an_equal() -> None:
    services = {"low": (service("low"), 500), "equal": (service("equal"), 500), "huge": (service("huge", 5), 2000)}
    world = World([build.node("n1", cpu=1000)], services)
    world.add("low", 1, on="n1")
    world.add("low", 2, on="n1")
    world.add("equal", 1)
    world.add("huge", 1)
    world.schedule()
    assert world.stopped() == []
    assert "not enough processors: needs 2, 0 is free" in world.tasks["huge-1"].status.message


def test_a_service_loses_no_more_than_it_allows() -> None:
    """Two of four have to stay, so only two of the three urgent ones find room."""
    services = {"low": (service("low", replicas=4, min_available="50%"), 500), "high": (service("high", 5), 500)}
    world = World([build.node("n1", cpu=1000), build.node("n2", cpu=1000)], services)
    for slot, node in enumerate(["n1", "n1", "n2", "n2"], start=1):
        world.add("low", slot, on=node)
    for slot in (1, 2, 3):
        world.add("high", slot)
    world.schedule()
    assert len(world.stopped()) == 2
    assert world.schedule() == plan.NOTHING


def test_room_that_is_promised_is_not_given_to_a_lesser_one() -> None:
    """The first victim's room is free already; its own replacement must not take it again."""
    services = {"low": (service("low"), 500), "high": (service("high", 5), 1000)}
    world = World([build.node("n1", cpu=1000)], services)
    world.add("low", 1, on="n1")
    world.add("low", 2, on="n1")
    urgent = world.add("high", 1)
    world.schedule()
    assert world.stopped() == ["low-1", "low-2"]
    world.end("low-1")
    again = world.add("low", 3)
    world.schedule()
    assert not world.tasks[again].node_id
    world.end("low-2")
    world.schedule()
    assert world.tasks[urgent].node_id == "n1"


def test_the_story_of_a_full_cluster() -> None:
    """What every pass of the scheduler decides while urgent tasks arrive and victims end, one after the other."""
    services = {
        "batch": (service("batch", -5, replicas=4, max_unavailable="2"), 500),
        "shop": (service("shop", 0, replicas=1, max_unavailable="1"), 500),
        "urgent": (service("urgent", 10), 1000),
    }
    world = World([build.node("n1", cpu=1000), build.node("n2", cpu=1500)], services)
    lines: list[str] = []

    def look(what: str) -> None:
        lines.extend(["", f"# {what}", *(f"  {line}" for line in world.schedule().describe().splitlines())])

    for slot in (1, 2, 3, 4):
        world.add("batch", slot)
    look("a batch of four is the first to come")
    world.add("shop", 1)
    look("the shop takes what is left")
    for name, task in world.tasks.items():
        task.status.state, task.status.ready = states.RUNNING, True
        assert task.node_id, f"{name} has a node"
    world.add("urgent", 1)
    look("an urgent task needs a whole node")
    world.add("urgent", 2)
    look("another one: the batch may not lose more than two")
    first, second = world.stopped()
    world.end(first)
    world.add("batch", 5)
    look(f"{first} has ended and is replaced: its room is promised")
    world.end(second)
    look(f"{second} has ended, too")
    look("nothing happens any more")
    golden.check(Path(__file__).parent / "preemption.txt", "\n".join(lines[1:]) + "\n")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([500, 1000, 2000]), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(-2, 2), st.sampled_from([100, 250, 500, 1000]), st.integers(1, 6)), min_size=2, max_size=4
    ),
    st.data(),
)
def test_it_comes_to_an_end(sizes: list[int], asked: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Victims are replaced and placed again, in any order of ends: a bounded number of tasks is ever made.

    A task is stopped only by one of a higher priority, which then is there; so each slot is made anew at most as often
    as there are tasks above it.
    """
    names = [f"s{number}" for number in range(len(asked))]
    services = {name: (service(name, priority), cpu) for name, (priority, cpu, _) in zip(names, asked, strict=True)}
    world = World([build.node(f"n{i}", cpu=cpu) for i, cpu in enumerate(sizes)], services)
    arrivals = [(name, slot) for name, (_, _, count) in zip(names, asked, strict=True) for slot in range(count)]
    for name, slot in data.draw(st.permutations(arrivals)):
        world.add(name, slot)
        world.schedule()
    number = 100
    for _ in range(400):
        made = world.schedule()
        ending = [name for name in world.stopped() if not states.is_terminal(world.tasks[name].status.state)]
        if not ending:
            # What one pass placed may change the reasons that it told before.
            assert plan.NOTHING in [made, *(world.schedule() for _ in asked)]
            break
        victim = data.draw(st.sampled_from(ending))
        world.end(victim)
        world.add(world.tasks[victim].service, number := number + 1)
    else:
        pytest.fail("tasks go on making way for each other")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([100, 250, 300, 500]), min_size=1, max_size=3),
    st.lists(st.sampled_from([500, 1000, 1600]), min_size=1, max_size=4),
    st.sampled_from([200, 500, 1100]),
    st.integers(2, 6),
)
def test_a_group_finds_the_same_ways_as_its_tasks_one_by_one(
    kinds: list[int], sizes: list[int], needed: int, urgent: int
) -> None:
    """What is remembered of a node for a group is what would be found if it were looked at anew."""
    stopped = []
    for by_one in (False, True):
        services = {f"low{number}": (service(f"low{number}"), cpu) for number, cpu in enumerate(kinds)}
        world = World([build.node(f"n{i}", cpu=cpu) for i, cpu in enumerate(sizes)], services)
        world.rules = scheduler.Rules(services={**world.rules.services, ("default", "high"): service("high", 5)})
        for slot in range(30):
            world.add(f"low{slot % len(kinds)}", slot)
        world.schedule()
        for one in world.tasks.values():
            if one.node_id:
                one.status.CopyFrom(pb.TaskStatus(state=states.RUNNING, ready=True, at=NOW_MS))
        for slot in range(urgent):
            name = world.add("high", slot)
            world.tasks[name].revision_id = f"high{slot}" if by_one else "high"
            world.templates[world.tasks[name].revision_id] = template(needed)
        world.schedule()
        stopped.append(world.stopped())
    assert stopped[0] == stopped[1]


def test_those_that_are_alike_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 equal tasks, four of which have to go, no choice is looked at that cannot be enough."""
    world = World(
        [build.node("n1", cpu=3000)], {"low": (service("low", replicas=60), 50), "high": (service("high", 5), 200)}
    )
    for slot in range(60):
        world.add("low", slot, on="n1")
    world.add("high", 1)
    looks = 0
    fits = preemption.Preemption._fits

    def counted(self: preemption.Preemption, row: int, ask: Ask, returned: Sequence[preemption.Held]) -> bool:
        nonlocal looks
        looks += 1
        return fits(self, row, ask, returned)

    monkeypatch.setattr(preemption.Preemption, "_fits", counted)
    world.schedule()
    assert len(world.stopped()) == 4
    assert looks < 30


@pytest.mark.parametrize(
    ("policy", "replicas", "ready", "expected"),
    [
        ({}, 3, 3, 1),
        ({}, 3, 2, 0),
        ({}, 1, 1, 1),
        ({"max_unavailable": "2"}, 5, 4, 1),
        ({"max_unavailable": "25%"}, 10, 10, 2),
        ({"max_unavailable": "0"}, 10, 10, 0),
        ({"min_available": "75%"}, 10, 10, 2),
        ({"min_available": "2"}, 10, 3, 1),
        ({"min_available": "100%"}, 4, 4, 0),
    ],
)
def test_how_many_may_go(policy: dict[str, str], replicas: int, ready: int, expected: int) -> None:
    asked = build.service("web", replicas)
    asked.spec.disruption.CopyFrom(pb.DisruptionPolicy(**policy))
    members = [build.task(slot, ready=slot <= ready) for slot in range(1, replicas + 1)]
    assert disruption.allowed(asked, members) == expected


def test_of_a_service_that_is_gone_all_may_go() -> None:
    assert disruption.allowed(None, [build.task(1), build.task(2, ready=False)]) == 1
