"""Nodes that have an image are taken before others, a little, and nothing is set aside for it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import foresight, scheduler, why
from controlplane.core.locality import Holders, Stock
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build, golden
from tests.support.build import NOW_MS
from tests.unit.controlplane.core import test_choosing as worlds

MIB = 1 << 20
REVISION = "web-1-id-web"
NODES = ("n1", "n2", "n3")
STORY = Path(__file__).parent / "locality.txt"


def stock(
    held: Mapping[str, tuple[str, ...]], layers: Mapping[str, int] | None, revisions: tuple[str, ...] = (REVISION,)
) -> Stock:
    """One image: its layers with their bytes (None: nobody has told), and what each node has of it."""
    holders = Holders()
    for node, digests in held.items():
        for digest in digests:
            holders.add(digest, node)
    status = pb.ImageStatus(blobs=[pb.ImageBlob(digest=one, size=size) for one, size in (layers or {}).items()])
    images = {"manifest": status} if layers is not None else {}
    return Stock(images_of=dict.fromkeys(revisions, ("manifest",)), images=images, holders=holders)


def rules(known: Stock, strategy: scheduler.Strategy = scheduler.Strategy.SPREAD) -> scheduler.Rules:
    return scheduler.Rules(stock=known, strategy=strategy)


def place(
    known: Stock,
    count: int = 1,
    *,
    loads: tuple[int, ...] = (0, 0, 0),
    template: pb.TaskTemplate | None = None,
    strategy: scheduler.Strategy = scheduler.Strategy.SPREAD,
) -> Counter[str]:
    """How many of the service's tasks go where. `loads`: tasks of another service that are there."""
    others = [
        build.task(slot, of="db", revision_id="db-1", node=node)
        for node, load in zip(NODES, loads, strict=True)
        for slot in range(load)
    ]
    waiting = [build.task(slot, states.NEW, ident=f"web-{slot}-x") for slot in range(1, count + 1)]
    templates = {REVISION: template or build.template(), "db-1": build.template()}
    machines = [build.node(one) for one in NODES]
    return Counter(
        worlds.chosen(scheduler.schedule(machines, others, waiting, templates, NOW_MS, rules(known, strategy))).values()
    )


IMAGE = {"base": 290 * MIB, "top": 20 * MIB}


@pytest.mark.parametrize(
    ("loads", "held", "goes"),
    [
        pytest.param((0, 0, 0), {}, "n1", id="nobody has it: by name"),
        pytest.param((0, 0, 0), {"n2": ("base", "top")}, "n2", id="the one that has it"),
        pytest.param((0, 0, 0), {"n2": ("base",), "n3": ("base", "top")}, "n3", id="all of it rather than most of it"),
        pytest.param((0, 0, 0), {"n3": ("base",)}, "n3", id="most of it rather than nothing"),
        pytest.param((0, 1, 1), {"n2": ("base", "top")}, "n2", id="although it has a task more"),
        pytest.param((0, 2, 2), {"n2": ("base", "top")}, "n1", id="and no more than one"),
        pytest.param((1, 2, 1), {"n2": ("base", "top"), "n3": ("base",)}, "n3", id="little to fetch is half a task"),
        pytest.param((1, 0, 1), {"n3": ("top",)}, "n2", id="a base that nobody has is fetched everywhere"),
    ],
)
def test_a_node_with_the_image_counts_as_if_it_had_less_to_do(
    loads: tuple[int, ...], held: dict[str, tuple[str, ...]], goes: str
) -> None:
    assert place(stock(held, IMAGE), loads=loads) == {goes: 1}


def test_what_is_small_is_fetched_anywhere() -> None:
    assert place(stock({"n3": ("layer",)}, {"layer": 15 * MIB})) == {"n1": 1}


def test_an_image_of_a_registry_is_where_its_manifest_is() -> None:
    """What it consists of is not known here: half a task, whatever its size."""
    known = stock({"n2": ("manifest",)}, None)
    assert place(known) == {"n2": 1}
    assert place(known, loads=(0, 1, 0)) == {"n1": 1}


def test_replicas_do_not_crowd_where_their_image_is() -> None:
    assert place(stock({"n2": ("base", "top")}, IMAGE), 7) == {"n1": 2, "n2": 3, "n3": 2}


def test_a_task_that_is_given_counts_as_one_that_is_there() -> None:
    """Both have one then, and n1 has half a task's worth to fetch: the next one goes to n2."""
    known = stock({"n1": ("base",), "n2": ("base", "top")}, IMAGE)
    waiting = [build.task(slot, states.NEW, ident=f"web-{slot}-x") for slot in (1, 2)]
    made = scheduler.schedule(
        [build.node("n1"), build.node("n2")],
        [build.task(9, revision_id=REVISION, node="n2")],
        waiting,
        {REVISION: build.template()},
        NOW_MS,
        rules(known),
    )
    assert worlds.chosen(made) == {"web-1-x": "n1", "web-2-x": "n2"}


def test_wishes_and_spread_count_before_it() -> None:
    known = stock({"n2": ("base", "top")}, IMAGE)
    wishing = build.template()
    wishing.placement.preferences.add(expression="node.name == n3", weight=1)
    assert place(known, template=wishing) == {"n3": 1}
    alone = build.template()
    alone.placement.spread.add(by="node.name", max_skew=1)
    assert place(known, 3, template=alone) == {"n1": 1, "n2": 1, "n3": 1}


def test_the_images_of_all_containers_count() -> None:
    holders = Holders()
    holders.add("main", "n1")
    holders.add("side", "n2")
    images = {
        "a": pb.ImageStatus(blobs=[pb.ImageBlob(digest="main", size=20 * MIB)]),
        "b": pb.ImageStatus(blobs=[pb.ImageBlob(digest="side", size=300 * MIB)]),
    }
    assert place(Stock(images_of={REVISION: ("a", "b")}, images=images, holders=holders)) == {"n2": 1}


def test_to_fill_up_it_decides_between_nodes_that_are_as_full() -> None:
    known = stock({"n2": ("base", "top")}, IMAGE)
    assert place(known, strategy=scheduler.Strategy.BINPACK) == {"n2": 1}
    assert place(known, loads=(0, 0, 3), strategy=scheduler.Strategy.BINPACK) == {"n3": 1}


def test_why_and_a_dry_run_tell_what_there_is_to_fetch() -> None:
    known = stock({"n1": ("base",), "n2": ("base", "top")}, IMAGE)
    machines = [build.node(one) for one in NODES]
    task = build.task(1, states.NEW)
    answer = why.explain(
        task, nodes=machines, placed=[], templates={REVISION: build.template()}, rules=rules(known), now_ms=NOW_MS
    )
    assert [(one.node, one.score[-1]) for one in answer.nodes] == [
        ("n2", "nothing to fetch"),
        ("n1", "20Mi to fetch"),
        ("n3", "310Mi to fetch"),
    ]
    service = build.service(replicas=2)
    service.spec.images["hello"] = "manifest"
    present = foresight.Present(nodes=machines, tasks=[], revisions=[], rules=rules(known))
    told = foresight.placements([service], present, NOW_MS).tasks
    assert [(one.node, one.fetches) for one in told] == [("n2", "nothing to fetch"), ("n1", "20Mi to fetch")]


def test_where_it_sets_no_nodes_apart_nothing_is_told() -> None:
    everywhere = stock(dict.fromkeys(NODES, ("base", "top")), IMAGE)
    machines = [build.node(one) for one in NODES]
    task = build.task(1, states.NEW)
    answer = why.explain(
        task, nodes=machines, placed=[], templates={REVISION: build.template()}, rules=rules(everywhere), now_ms=NOW_MS
    )
    assert {one.score[-1] for one in answer.nodes} == {"0 tasks there"}


def test_whoever_answers_without_knowing_says_nothing() -> None:
    assert Stock(images_of={REVISION: ("manifest",)}).lacking(REVISION, Holders().numbers(NODES)) is None


def test_the_story_of_an_image_that_spreads() -> None:
    """Service after service of one large image; who starts a task has the image from then on."""
    known = stock({}, IMAGE, tuple(f"s{number}" for number in range(1, 9)))
    golden.check(STORY, "".join(f"{line}\n" for line in _spreading(known)))


def _spreading(known: Stock) -> Iterator[str]:
    machines, placed = [build.node(one) for one in NODES], list[pb.Task]()
    for service in known.images_of:
        task = build.task(1, states.NEW, of=service, revision_id=service, ident=f"{service}-1")
        of = {one: build.template() for one in known.images_of}
        told = why.explain(task, nodes=machines, placed=placed, templates=of, rules=rules(known), now_ms=NOW_MS)
        (made,) = scheduler.schedule(machines, placed, [task], of, NOW_MS, rules(known)).changes
        assert isinstance(made.value, pb.Task)
        yield f"{task.meta.id} goes to {made.value.node_id}"
        yield from (f"    {one.node}: {', '.join(one.score)}" for one in told.nodes)
        placed.append(made.value)
        for layer in IMAGE:
            known.holders.add(layer, made.value.node_id)


# Whatever there is ------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "leave"]), st.sampled_from("abcdefghijkl"), st.sampled_from("xyz")),
    max_size=60,
)


@given(STEPS)
def test_the_bits_say_what_sets_would(steps: list[tuple[str, str, str]]) -> None:
    """Through nodes that come, go, and leave their numbers to others."""
    holders, plain = Holders(), dict[str, set[str]]()
    for step, node, blob in steps:
        match step:
            case "add":
                holders.add(blob, node)
                plain.setdefault(node, set()).add(blob)
            case "remove":
                holders.remove(blob, node)
                plain.get(node, set()).discard(blob)
            case _:
                for each in plain.pop(node, ()):
                    holders.remove(each, node)
                holders.forget(node)
    nodes = "mabcdefghijkl"
    for blob in "xyz":
        where = holders.where(blob, holders.numbers(nodes)).tolist()
        assert where == [blob in plain.get(node, ()) for node in nodes]
        assert (blob in holders) == any(where)


@st.composite
def stocks(draw: st.DrawFn, images: tuple[str, ...] = worlds.NAMES) -> Stock:
    """Every service has an image of its own, of layers that they share; nodes have some of them."""
    holders = Holders()
    blobs = ("base", "large", "small", *images)
    for node in (f"n{number}" for number in range(7)):
        for blob in draw(st.sets(st.sampled_from(blobs))):
            holders.add(blob, node)
    sizes = {"base": 260 * MIB, "large": 20 * MIB, "small": MIB}
    known = {}
    for name in images:
        layers = draw(st.sets(st.sampled_from(sorted(sizes))))
        known[name] = pb.ImageStatus(blobs=[pb.ImageBlob(digest=one, size=sizes[one]) for one in sorted(layers)])
    return Stock(images_of={name: (name,) for name in images}, images=known, holders=holders)


@settings(max_examples=200, deadline=None)
@given(
    worlds.nodes(),
    worlds.templates(),
    stocks(),
    st.integers(2, 7),
    st.sampled_from(list(scheduler.Strategy)),
    st.data(),
)
def test_many_at_once_go_where_one_after_the_other_would(
    machines: list[pb.Node],
    made: pb.TaskTemplate,
    known: Stock,
    replicas: int,
    strategy: scheduler.Strategy,
    data: st.DataObject,
) -> None:
    of, said = {"web": made, "db": build.template()}, rules(known, strategy)
    waiting = worlds.waiting_tasks([("web", replicas)], of)
    there = data.draw(worlds.earlier(machines))
    placed = [*there]
    expected: dict[str, str] = {}
    for task in waiting:
        alone = scheduler.schedule(machines, placed, [task], of, NOW_MS, said)
        expected |= worlds.chosen(alone)
        placed += [one.value for one in alone.changes if isinstance(one.value, pb.Task) and one.value.node_id]
    assert worlds.chosen(scheduler.schedule(machines, there, waiting, of, NOW_MS, said)) == expected


@settings(max_examples=150, deadline=None)
@given(stocks(), st.integers(2, 7), st.integers(1, 9), st.lists(st.integers(0, 5), min_size=7, max_size=7))
def test_a_service_is_spread_as_evenly_as_without_it(known: Stock, nodes: int, replicas: int, loads: list[int]) -> None:
    """Whoever has what: no node gets two tasks more of a service than another."""
    machines = [build.node(f"n{number}") for number in range(nodes)]
    others = [
        build.task(slot, of="db", revision_id="db", node=node.meta.id)
        for node, load in zip(machines, loads, strict=False)
        for slot in range(load)
    ]
    of = {name: build.template() for name in worlds.NAMES}
    waiting = worlds.waiting_tasks([("web", replicas)], of)
    found = Counter(worlds.chosen(scheduler.schedule(machines, others, waiting, of, NOW_MS, rules(known))).values())
    counts = [found[node.meta.id] for node in machines]
    assert max(counts) - min(counts) <= 1


@settings(max_examples=150, deadline=None)
@given(stocks(tuple(f"s{number}" for number in range(12))), st.integers(2, 7))
def test_services_that_share_an_image_crowd_by_two_tasks_at_most(known: Stock, nodes: int) -> None:
    """Twelve services of one task each, whoever has their images."""
    machines = [build.node(f"n{number}") for number in range(nodes)]
    of = {name: build.template() for name in known.images_of}
    waiting = worlds.waiting_tasks([(name, 1) for name in of], of)
    found = Counter(worlds.chosen(scheduler.schedule(machines, [], waiting, of, NOW_MS, rules(known))).values())
    counts = [found[node.meta.id] for node in machines]
    assert max(counts) - min(counts) <= 2
