"""Counters become rates: counters that begin anew, nodes that come and go, and clocks of their own."""

import pytest

from orchctl import rates, top
from protos.orch.v1 import control_pb2 as control

WEB = ("default", "web")


def node(name: str, at_s: float, *services: control.ServiceTraffic, **fields: int) -> control.NodeUsage:
    return control.NodeUsage(node=name, at_ns=int(at_s * rates.NANOSECONDS), services=services, **fields)  # type: ignore[arg-type]


def web(connections: int, **more: int) -> control.ServiceTraffic:
    return control.ServiceTraffic(namespace="default", service="web", connections=connections, **more)  # type: ignore[arg-type]


def by_name(*nodes: control.NodeUsage) -> rates.Nodes:
    return {each.node: each for each in nodes}


def test_a_rate_is_summed_over_nodes() -> None:
    """Each by its own clock: 10 connections in 2 s, and 30 in 3 s, are 15 a second."""
    before = by_name(node("n1", 100, web(5)), node("n2", 7, web(0)))
    now = by_name(node("n1", 102, web(15, bytes=400, refused=2)), node("n2", 10, web(30)))
    found = rates.services(before, now)[WEB]
    assert (found.connections, found.bytes, found.refused) == (15, 200, 1)


@pytest.mark.parametrize(("before", "now", "expected"), [(7, 9, 2), (7, 7, 0), (7, 3, 3), (0, 0, 0)])
def test_a_counter_that_begins_anew_has_not_gone_back(before: int, now: int, expected: int) -> None:
    assert rates.risen(before, now) == expected


def test_a_service_that_is_new_on_a_node_began_at_nothing() -> None:
    assert rates.services(by_name(node("n1", 1)), by_name(node("n1", 3, web(4))))[WEB].connections == 2


def test_nobody_makes_a_rate_out_of_one_look() -> None:
    """A node that has just come, one that did not tell, and one whose machine was started again in between."""
    lost = control.NodeUsage(node="n2", problem="its agent has no session")
    before = by_name(lost, node("n3", 500, web(4)))
    now = by_name(node("n1", 3, web(4)), node("n2", 3, web(9)), node("n3", 2, web(1)))
    assert rates.services(before, now) == {}
    assert rates.nodes(before, now) == []


def test_tasks_by_what_they_use() -> None:
    def at(seconds: float, **used_ms: int) -> rates.Nodes:
        made = node("n1", seconds)
        for name, milliseconds in used_ms.items():
            made.tasks.add(task_id=name, name=name, namespace="default", cpu_ns=milliseconds * 1_000_000, memory=2048)
        return by_name(made)

    rows = top.task_rows("default", at(1, idle=10, busy=0), at(3, idle=10, busy=1000, fresh=70))
    assert rows == [
        ["busy", "n1", "0.50", "2.0Ki", "0"],
        ["fresh", "n1", "0.00", "2.0Ki", "0"],
        ["idle", "n1", "0.00", "2.0Ki", "0"],
    ]
    assert top.task_rows("shop", at(1, busy=0), at(3, busy=1)) == []


def test_a_node_by_its_machine() -> None:
    before = by_name(node("n1", 1, cpu_ns=0, processors=4))
    now = by_name(node("n1", 2, cpu_ns=3_000_000_000, processors=4, memory=1 << 30, memory_total=4 << 30))
    assert top.node_rows(before, now) == [["n1", "3.00", "75%", "1.0Gi", "25%"]]


def test_small_rates_are_not_rounded_away() -> None:
    assert [top.rate(value) for value in (0, 0.42, 9.94, 12.4)] == ["0", "0.4", "9.9", "12"]
