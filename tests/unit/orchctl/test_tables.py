"""Tables and pages, as people see them. The expected texts are files: `ORCH_GOLDEN=write` writes them anew."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchctl import network_pages, pages, tables
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import golden, samples

HERE = Path(__file__).parent
VIEW = tables.View(now_ms=samples.NOW_MS, node_names={"node-1": "n1"}, tasks_by_node={"node-1": 2})

ROLLING = samples.service("web", asked=5, ready=2, settled=False)
ROLLING.status.message = "1 task waits for a node"
LEAVING = samples.service("old")
LEAVING.meta.deleted_at = samples.NOW_MS
NASTY = samples.task(4, message="bell \x07 and \x1b[2J and\nanother line", ready=False)

OBJECTS: dict[str, Sequence[kinds.StoredObject]] = {
    "services": [samples.service(), ROLLING, LEAVING],
    "tasks": [samples.task(1, address="10.112.1.2"), samples.CRASHING, samples.PENDING, NASTY],
    "nodes": [samples.node()],
    "revisions": [samples.revision(1), samples.revision(2)],
    "images": [samples.image()],
    "networks": [samples.network(), samples.network("front", internal=False)],
    "events": [
        samples.event(),
        samples.event("Failed", type=pb.EVENT_TYPE_WARNING, count=7, message="bell \x07 and\nanother line", age_ms=0),
        samples.event("Drained", about="node/n1", actor="ann@laptop", message="its tasks are replaced on other nodes"),
    ],
    "clusters": [samples.cluster()],
    "endpoints": [samples.endpoints(), samples.endpoints("web", ready=5, all_of_them=5, networks=("default/back",))],
}


def render(values: Sequence[kinds.StoredObject], *, wide: bool = False, all_namespaces: bool = False) -> str:
    shown = tables.columns(kinds.of(values[0]), wide=wide, with_namespace=all_namespaces)
    rows = [tables.row(value, shown, VIEW) for value in values]
    return "\n".join(tables.table([column.title for column in shown], rows)) + "\n"


@pytest.mark.parametrize("what", OBJECTS)
def test_tables_are_as_expected(what: str) -> None:
    golden.check(HERE / f"{what}.txt", render(OBJECTS[what]))


@pytest.mark.parametrize("what", OBJECTS)
def test_wide_tables_are_as_expected(what: str) -> None:
    golden.check(HERE / f"{what}_wide.txt", render(OBJECTS[what], wide=True, all_namespaces=True))


def test_a_page_tells_everything_about_a_service() -> None:
    tasks = [samples.task(1), samples.CRASHING, samples.PENDING]
    lines = pages.service(samples.service(), tasks, [samples.revision()], VIEW)
    golden.check(HERE / "service_page.txt", "\n".join(lines) + "\n")


def test_a_page_tells_why_a_task_waits() -> None:
    lines = pages.task(samples.PENDING, samples.revision(), VIEW)
    golden.check(HERE / "task_page.txt", "\n".join(lines) + "\n")


def test_a_page_tells_what_a_node_has() -> None:
    golden.check(HERE / "node_page.txt", "\n".join(pages.node(samples.node(), [samples.task(1)], VIEW)) + "\n")


def test_a_page_tells_of_an_image() -> None:
    golden.check(HERE / "image_page.txt", "\n".join(pages.image(samples.image(), VIEW)) + "\n")


def test_a_page_tells_of_an_event() -> None:
    event = samples.event("Scaled", about="service/hello", actor="ann@laptop", message="1 → 2 replicas")
    golden.check(HERE / "event_page.txt", "\n".join(pages.event(event, VIEW)) + "\n")


def test_a_page_tells_where_a_service_leads_to() -> None:
    lines = network_pages.endpoints(samples.endpoints(networks=("default/back",)), VIEW)
    golden.check(HERE / "endpoints_page.txt", "\n".join(lines) + "\n")


def test_a_page_tells_who_is_in_a_network_and_who_is_allowed_in() -> None:
    members = [samples.endpoints(), samples.endpoints("web", networks=("default/back",))]
    lines = network_pages.network(samples.network(), members, VIEW)
    golden.check(HERE / "network_page.txt", "\n".join(lines) + "\n")


def test_networks_are_listed_with_how_many_are_in_them() -> None:
    members = [samples.endpoints(), samples.endpoints("web", networks=("default/back",))]
    listed = [network_pages.default_network("default"), samples.network(), samples.network("empty", internal=False)]
    lines = network_pages.networks(listed, members, with_namespace=True)
    assert [line.split() for line in lines] == [
        ["NAMESPACE", "NAME", "INTERNAL", "SERVICES", "TASKS"],
        ["default", "default", "no", "1", "3"],
        ["default", "back", "yes", "1", "3"],
        ["default", "empty", "no", "0", "0"],
    ]


def test_nothing_that_came_from_elsewhere_moves_the_cursor() -> None:
    """A message is one line of visible signs, whatever was in it."""
    (line,) = [line for line in render([NASTY]).splitlines() if "bell" in line]
    assert line.endswith(r"bell \x07 and \x1b[2J and another line")


def test_rows_line_up_under_wide_signs() -> None:
    """A sign that takes two columns is counted as two."""
    lines = tables.table(["A", "B"], [["世界", "x"], ["abcd", "y"]])
    assert lines == ["A      B", "世界   x", "abcd   y"]


def test_only_the_last_cell_is_cut() -> None:
    lines = tables.table(["NAME", "MESSAGE"], [["a" * 30, "b" * 60]], limit=60)
    assert lines[1] == "a" * 30 + "   " + "b" * 26 + "…"


def test_the_last_cell_keeps_a_little_in_a_narrow_terminal() -> None:
    lines = tables.table(["NAME", "MESSAGE"], [["a" * 30, "b" * 60]], limit=10)
    assert lines[1].endswith("b" * (tables.NARROWEST - 1) + "…")


def test_tasks_are_sorted_by_service_slot_and_age() -> None:
    old = samples.task(2, age_ms=9000)
    new = samples.task(2, random="00000000", age_ms=10)
    other = samples.task(10)
    assert sorted([other, new, old], key=tables.sort_key) == [old, new, other]


def test_an_unknown_node_is_shown_by_its_id() -> None:
    task = samples.task(1)
    task.node_id = "node-9"
    assert "node-9" in render([task])


def test_every_kind_has_a_table() -> None:
    assert all(tables.columns(kind, wide=True, with_namespace=True) for kind in kinds.KINDS)


def test_a_state_of_a_later_version_is_shown_by_its_number() -> None:
    task = samples.task(1)
    task.status.state = 85  # type: ignore[assignment]  # a state of the future
    assert isinstance(task, pb.Task)
    assert " 85 " in render([task])
