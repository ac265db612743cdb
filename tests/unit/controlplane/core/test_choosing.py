"""The quick way to choose nodes answers as the naive one, which looks at everything anew for each task."""

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import plan, scheduler
from controlplane.core.ask import stands
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

ZONES = ("a", "b", "c")
NAMES = ("web", "db", "api")
BY = ("node.labels.zone", "node.labels.rack", "node.name")


@st.composite
def nodes(draw: st.DrawFn) -> list[pb.Node]:
    made = []
    for number in range(draw(st.integers(1, 7))):
        node = build.node(f"n{number}", cpu=draw(st.sampled_from([0, 300, 1000])), tasks=draw(st.integers(1, 4)))
        for key in ("zone", "rack"):
            value = draw(st.sampled_from(["", *ZONES]))
            if value:
                node.meta.labels[key] = value
        node.status.description.capacity.generic["gpu"].ids.extend(draw(st.sampled_from([[], ["0"], ["0", "1", "2"]])))
        if draw(st.integers(0, 4)) == 0:
            node.spec.taints.add(key="gpu", effect=draw(st.integers(1, 3)))  # type: ignore[arg-type]  # their numbers
        made.append(node)
    return made


@st.composite
def templates(draw: st.DrawFn) -> pb.TaskTemplate:
    template = build.template()
    template.container.resources.reservations.cpu = draw(st.sampled_from([0, 0, 100, 250]))
    if draw(st.integers(0, 4)) == 0:
        template.container.resources.reservations.generic["gpu"] = draw(st.integers(1, 2))
    wishes = template.placement
    if draw(st.integers(0, 3)) == 0:
        wishes.constraints.append(draw(st.sampled_from(["node.labels.zone in (a, b)", "node.labels.rack != a"])))
    if draw(st.booleans()):
        wishes.preferences.add(expression="node.labels.zone == b", weight=draw(st.sampled_from([-3, 2])))
    for by in draw(st.lists(st.sampled_from(BY), max_size=2, unique=True)):
        wishes.spread.add(by=by, max_skew=draw(st.sampled_from([0, 0, 1, 2])))
    for listed in (wishes.near, wishes.apart):
        if draw(st.integers(0, 2)) == 0:
            weight = draw(st.sampled_from([0, 1, 5]))
            listed.add(service=draw(st.sampled_from(NAMES)), by=draw(st.sampled_from(["", *BY])), weight=weight)
    wishes.max_per_node = draw(st.sampled_from([0, 0, 0, 1, 2]))
    if draw(st.booleans()):
        wishes.tolerations.add(key="gpu")
    return template


class Naive:
    """Places one task after another, by the words of the documentation."""

    def __init__(self, machines: list[pb.Node], of: dict[str, pb.TaskTemplate]) -> None:
        self.machines, self.of = machines, of
        self.placed: list[tuple[str, pb.Node]] = []

    def place(self, name: str, target: str) -> str:
        fitting = [node for node in self.machines if target in {"", node.meta.id} and self.fits(name, node)]
        best = min(fitting, key=lambda node: self.score(name, node), default=None)
        if best is not None:
            self.placed.append((name, best))
        return best.meta.id if best is not None else ""

    def at(self, name: str, by: str, value: str | None) -> int:
        return sum(one == name and _value(node, by) == value for one, node in self.placed)

    def fits(self, name: str, node: pb.Node) -> bool:
        wishes, needs = self.of[name].placement, self.of[name].container.resources.reservations
        here = [self.of[one] for one, home in self.placed if home is node]
        capacity = node.status.description.capacity
        used = [one.container.resources.reservations for one in here]
        return (
            self.eligible(name, node)
            and len(here) < capacity.tasks
            and (not needs.cpu or sum(one.cpu for one in used) + needs.cpu <= capacity.cpu)
            and sum(one.generic.get("gpu", 0) for one in used) + needs.generic.get("gpu", 0)
            <= len(capacity.generic["gpu"].ids)
            and (not wishes.max_per_node or self.at(name, "node.name", node.meta.name) < wishes.max_per_node)
            and all(self.is_even(name, node, one) for one in wishes.spread if one.max_skew)
            and all(self.is_near(name, node, one) for one in wishes.near if not one.weight)
            and all(self.is_apart(name, node, other) for other in NAMES)
        )

    def eligible(self, name: str, node: pb.Node) -> bool:
        wishes = self.of[name].placement
        zone, rack = node.meta.labels.get("zone"), node.meta.labels.get("rack")
        refused = [t for t in node.spec.taints if t.effect != pb.TAINT_EFFECT_PREFER_NO_SCHEDULE]
        return all(
            zone in {"a", "b"} if constraint.startswith("node.labels.zone") else rack != "a"
            for constraint in wishes.constraints
        ) and all(stands(wishes.tolerations, taint) for taint in refused)

    def is_even(self, name: str, node: pb.Node, spread: pb.Spread) -> bool:
        value = _value(node, spread.by)
        parts = {_value(one, spread.by) for one in self.machines if self.eligible(name, one)} - {None}
        least = min((self.at(name, spread.by, part) for part in parts), default=0)
        return value is not None and self.at(name, spread.by, value) + 1 - least <= spread.max_skew

    def is_near(self, name: str, node: pb.Node, near: pb.Affinity) -> bool:
        value, by = _value(node, near.by), near.by or "node.name"
        is_first = near.service == name and not any(one == name for one, _ in self.placed)
        return is_first or (value is not None and self.at(near.service, by, value) > 0)

    def is_apart(self, name: str, node: pb.Node, other: str) -> bool:
        rules = [one.by for one in self.of[name].placement.apart if not one.weight and one.service == other]
        rules += [one.by for one in self.of[other].placement.apart if not one.weight and one.service == name]
        met = [
            by for by in rules if (value := _value(node, by)) is not None and self.at(other, by or "node.name", value)
        ]
        return not met

    def score(self, name: str, node: pb.Node) -> tuple[object, ...]:
        wishes = self.of[name].placement
        avoided = [t for t in node.spec.taints if t.effect == pb.TAINT_EFFECT_PREFER_NO_SCHEDULE]
        total = sum(one.weight for one in wishes.preferences if node.meta.labels.get("zone") == "b")
        for sign, listed in ((1, wishes.near), (-1, wishes.apart)):
            for one in listed:
                value = _value(node, one.by)
                if value is not None and self.at(one.service, one.by or "node.name", value):
                    total += sign * one.weight
        return (
            sum(not stands(wishes.tolerations, taint) for taint in avoided),
            -total,
            [self.at(name, one.by, _value(node, one.by)) for one in wishes.spread],
            self.at(name, "node.name", node.meta.name),
            sum(home is node for _, home in self.placed),
            node.meta.name,
        )


def _value(node: pb.Node, by: str) -> str | None:
    return node.meta.name if by in {"", "node.name"} else node.meta.labels.get(by.removeprefix("node.labels."))


def waiting_tasks(asked: list[tuple[str, int]], of: dict[str, pb.TaskTemplate], target: str = "") -> list[pb.Task]:
    made = []
    for moment, (name, count) in enumerate(asked):
        for slot in range(1, count + 1):
            task = build.task(slot, states.NEW, of=name, revision_id=name, ident=f"{name}-{moment}-{slot:02}")
            task.meta.created_at += moment
            task.target_node_id = target
            made.append(task)
    assert all(task.revision_id in of for task in made)
    return made


@st.composite
def earlier(draw: st.DrawFn, machines: list[pb.Node]) -> list[pb.Task]:
    """What is on the nodes already: tasks of web and of db, and some of web that have failed."""
    drawn = draw(
        st.lists(st.tuples(st.sampled_from(["web", "db"]), st.booleans(), st.sampled_from(machines)), max_size=5)
    )
    return [
        build.task(
            100 + number,
            states.FAILED if failed and name == "web" else states.RUNNING,
            of=name,
            revision_id=name,
            node=node.meta.id,
            ident=f"{name}-earlier-{number}",
        )
        for number, (name, failed, node) in enumerate(drawn)
    ]


def chosen(made: plan.Plan) -> dict[str, str]:
    return {change.value.meta.id: change.value.node_id for change in made.changes if isinstance(change.value, pb.Task)}


@settings(max_examples=400, deadline=None)
@given(nodes(), st.tuples(templates(), templates(), templates()), st.permutations(NAMES), st.integers(1, 7))
def test_the_quick_way_and_the_naive_way_choose_the_same_nodes(
    machines: list[pb.Node], made: tuple[pb.TaskTemplate, ...], order: list[str], replicas: int
) -> None:
    of = dict(zip(NAMES, made, strict=True))
    naive = Naive(machines, of)
    waiting = waiting_tasks([(name, replicas) for name in order], of)
    expected = {task.meta.id: naive.place(task.service, "") for task in waiting}
    assert chosen(scheduler.schedule(machines, [], waiting, of, NOW_MS)) == expected


@settings(max_examples=100, deadline=None)
@given(nodes(), templates(), st.integers(0, 8))
def test_a_task_of_one_node_goes_there_or_nowhere(machines: list[pb.Node], made: pb.TaskTemplate, number: int) -> None:
    of = {"web": made, "db": build.template(), "api": build.template()}
    naive = Naive(machines, of)
    waiting = waiting_tasks([("web", 2)], of, target=f"n{number}")
    expected = {task.meta.id: naive.place("web", f"n{number}") for task in waiting}
    assert chosen(scheduler.schedule(machines, [], waiting, of, NOW_MS)) == expected


@settings(max_examples=200, deadline=None)
@given(nodes(), st.tuples(templates(), templates(), templates()), st.integers(1, 5))
def test_what_stands_already_counts_as_what_is_placed_now(
    machines: list[pb.Node], made: tuple[pb.TaskTemplate, ...], replicas: int
) -> None:
    """Two passes, the first one's answer stored between them, choose what the naive way chooses in one go."""
    of = dict(zip(NAMES, made, strict=True))
    naive = Naive(machines, of)
    placed: list[pb.Task] = []
    for name in ("db", "web", "web"):
        waiting = waiting_tasks([(name, replicas)], of)
        for task in waiting:
            task.meta.id = task.meta.name = f"{task.meta.id}-{len(placed)}"
        expected = {task.meta.id: naive.place(name, "") for task in waiting}
        plan_made = scheduler.schedule(machines, placed, waiting, of, NOW_MS)
        assert chosen(plan_made) == expected
        placed += [one.value for one in plan_made.changes if isinstance(one.value, pb.Task) and one.value.node_id]
    for node in machines:
        given_ids = [each for one in placed if one.node_id == node.meta.id for each in one.granted["gpu"].ids]
        assert len(given_ids) == len(set(given_ids)), "an id was granted twice"


@settings(max_examples=200, deadline=None)
@given(nodes(), templates(), st.integers(2, 7), st.sampled_from(list(scheduler.Strategy)), st.data())
def test_many_at_once_go_where_one_after_the_other_would(
    machines: list[pb.Node], made: pb.TaskTemplate, replicas: int, strategy: scheduler.Strategy, data: st.DataObject
) -> None:
    """Whatever nodes are compared by: each pass looks at everything anew."""
    of, rules = {"web": made, "db": build.template()}, scheduler.Rules(strategy=strategy)
    waiting = waiting_tasks([("web", replicas)], of)
    there = data.draw(earlier(machines))
    placed = [*there]
    expected: dict[str, str] = {}
    for task in waiting:
        alone = scheduler.schedule(machines, placed, [task], of, NOW_MS, rules)
        expected |= chosen(alone)
        placed += [one.value for one in alone.changes if isinstance(one.value, pb.Task) and one.value.node_id]
    assert chosen(scheduler.schedule(machines, there, waiting, of, NOW_MS, rules)) == expected


def test_filling_up_uses_as_few_nodes_as_it_can() -> None:
    """Each node takes four of these; spreading would use all five."""
    machines = [build.node(f"n{number}", cpu=1000) for number in range(5)]
    of = {"web": build.template(resources=pb.Resources(reservations=pb.ResourceReservations(cpu=250)))}
    rules = scheduler.Rules(strategy=scheduler.Strategy.BINPACK)
    made = scheduler.schedule(machines, [], waiting_tasks([("web", 8)], of), of, NOW_MS, rules)
    assert sorted(chosen(made).values()) == ["n0"] * 4 + ["n1"] * 4
