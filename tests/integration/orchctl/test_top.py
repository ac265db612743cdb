"""`orchctl top`, as a process, against a control plane in memory."""

from collections.abc import Callable

from protos.orch.v1 import control_pb2 as control
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

Run = Callable[..., Result]
SECOND = 1_000_000_000


def look(at_s: int, connections: int) -> list[control.NodeUsage]:
    """What two nodes say at that time; the second one never says anything."""
    web = control.ServiceTraffic(
        namespace="default", service="web", connections=connections, refused=2 * at_s, bytes=2048 * at_s
    )
    other = control.ServiceTraffic(namespace="shop", service="api", connections=at_s)
    task = control.TaskUsage(task_id="t1", name="web-1-abc", namespace="default", cpu_ns=at_s * SECOND // 4)
    told = control.NodeUsage(
        node="n1", at_ns=at_s * SECOND, cpu_ns=at_s * SECOND, processors=2, services=[web, other], tasks=[task]
    )
    return [told, control.NodeUsage(node="n2", problem="its agent has no session")]


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_services_by_what_came_between_two_looks(fake: FakeControl, run: Run) -> None:
    fake.looks = [look(10, 100), look(12, 150)]
    result = run("top", "services", "--interval", "10ms")
    assert result.code == 0, result.err
    assert cells(result.out) == [
        ["SERVICE", "CONNECTIONS/S", "REFUSED/S", "PACKETS/S", "BYTES/S"],
        ["web", "25", "2.0", "0", "2.0Ki"],
    ]
    assert "n2 is not counted: its agent has no session" in result.err
    assert fake.asked(control.UsageRequest) == [control.UsageRequest(services=True)] * 2


def test_all_namespaces(fake: FakeControl, run: Run) -> None:
    fake.looks = [look(10, 100), look(12, 150)]
    rows = cells(run("top", "services", "-A", "--interval", "10ms").out)
    assert [row[:3] for row in rows[1:]] == [["default", "web", "25"], ["shop", "api", "1.0"]]


def test_tasks_and_nodes(fake: FakeControl, run: Run) -> None:
    fake.looks = [look(1, 0), look(2, 0)]
    assert cells(run("top", "tasks", "--interval", "10ms").out)[1:] == [["web-1-abc", "n1", "0.25", "0", "0"]]
    fake.looks = [look(1, 0), look(2, 0)]
    assert cells(run("top", "nodes", "--interval", "10ms").out)[1:] == [["n1", "1.00", "50%", "0", "0%"]]


def test_watching_goes_on_until_it_ends(fake: FakeControl, run: Run) -> None:
    """A table for each interval; here the control plane goes away after three of them."""
    fake.looks = [look(1, 0), look(2, 7), look(3, 17), look(4, 20)]
    result = run("top", "services", "-w", "--interval", "10ms")
    assert [row[1] for row in cells(result.out) if row and row[0] == "web"] == ["7.0", "10", "3.0"]
    assert result.code == 1
    assert "nothing more to tell" in result.err


def test_nobody_there(fake: FakeControl, run: Run) -> None:
    fake.looks = [[]]
    result = run("top", "nodes")
    assert (result.code, "there is no node to ask" in result.err) == (1, True)
