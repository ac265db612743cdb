"""What `orchctl why` and a dry run print."""

from orchctl import planned
from orchctl.verbs import why
from protos.orch.v1 import control_pb2 as control

CPU = control.FilterVerdict(filter="cpu", refusal="not enough processors: needs 2, 1 is free")
STATE = control.FilterVerdict(filter="state")


def test_why_shows_nodes_with_their_first_reason() -> None:
    nodes = [
        control.NodeVerdict(node="n1", takes=True, here=True, score=["0 of its tasks there", "2 tasks there"]),
        control.NodeVerdict(node="n2", filters=[CPU]),
    ]
    response = control.WhyResponse(task="web-1-x", service="web", summary="it is on n1", nodes=nodes)
    assert why.page(response, every=False) == [
        "web-1-x: it is on n1",
        "",
        "NODE        TAKES IT   WHY",
        "n1 (here)   yes        0 of its tasks there, 2 tasks there",
        "n2          no         cpu: not enough processors: needs 2, 1 is free",
    ]


def test_why_shows_every_filter_of_one_node() -> None:
    response = control.WhyResponse(
        service="web", summary="one more task", nodes=[control.NodeVerdict(node="n2", filters=[STATE, CPU])]
    )
    assert why.page(response, every=True) == [
        "service web: one more task",
        "",
        "n2: cpu: not enough processors: needs 2, 1 is free",
        "FILTER   PASSES   WHY NOT",
        "state    yes      -",
        "cpu      no       not enough processors: needs 2, 1 is free",
    ]


def test_a_dry_run_shows_where_tasks_would_go() -> None:
    placements = [
        control.PlannedTask(service="default/web", slot=1, node="n1", stays=True),
        control.PlannedTask(service="default/web", slot=2, node="n2"),
        control.PlannedTask(service="default/web", slot=3, message="no node takes it"),
    ]
    assert planned.page(placements)[2:] == [
        "SERVICE       SLOT   NODE   REMARK",
        "default/web   1      n1     is there already",
        "default/web   2      n2     new",
        "default/web   3      -      no node takes it",
    ]
    assert planned.page(placements, 3000)[-1] == "… and 3000 new tasks more, for which nobody has looked"
    assert planned.page(placements, 1)[-1] == "… and 1 new task more, for which nobody has looked"
    assert planned.page([]) == []
