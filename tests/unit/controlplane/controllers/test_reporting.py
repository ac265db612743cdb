"""A report is acknowledged when it is stored, not before, and the newest one of a task wins."""

from controlplane.controllers.reporting import Reporting
from controlplane.core import nodes, plan
from controlplane.store import typed
from controlplane.store.snapshots import Editor, Snapshot
from protos import kinds, states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build


class Agent:
    """A session that notes what was acknowledged."""

    def __init__(self, node_id: str = "n1") -> None:
        description = pb.NodeDescription()
        self.info = nodes.Session(
            session_id="s", node_id=node_id, node_name=node_id, description=description, labels={}
        )
        self.acknowledged: list[int] = []

    def wake(self) -> None:
        raise AssertionError("not expected here")

    def open_stream(self, request: wire.OpenStream) -> None:
        raise AssertionError(f"not expected here: {request}")

    def acknowledge(self, sequence: int) -> None:
        self.acknowledged.append(sequence)

    def end(self, why: str) -> None:
        raise AssertionError(why)


def report(sequence: int, task: pb.Task, state: states.State) -> wire.StatusReport:
    one = wire.TaskReport(task_id=task.meta.id, namespace="default", status=pb.TaskStatus(state=state))
    return wire.StatusReport(sequence=sequence, tasks=[one])


def snapshot(*tasks: pb.Task) -> Snapshot:
    editor = Editor()
    for task in tasks:
        kind = kinds.of(task)
        editor.replace(kind, kinds.key(task), typed.decode(kinds.key(task), typed.encode(task), task.meta.version))
    return editor.snapshot()


def states_of(made: plan.Plan) -> list[states.State]:
    return [change.value.status.state for change in made.changes if isinstance(change.value, pb.Task)]


def test_a_report_is_acknowledged_when_it_is_stored() -> None:
    task, agent, reporting = build.task(1, states.ASSIGNED), Agent(), Reporting()
    keys = reporting.submit(agent, report(7, task, states.RUNNING))
    assert states_of(reporting.decide(snapshot(task), keys, 0)) == [states.RUNNING]
    assert agent.acknowledged == []
    reporting.done(keys)
    assert agent.acknowledged == [7]
    assert reporting.decide(snapshot(task), keys, 0) == plan.NOTHING, "what is stored is forgotten"


def test_what_arrives_while_another_is_being_stored_is_stored_next() -> None:
    task, agent, reporting = build.task(1, states.ASSIGNED), Agent(), Reporting()
    keys = reporting.submit(agent, report(1, task, states.STARTING))
    reporting.decide(snapshot(task), keys, 0)
    reporting.submit(agent, report(2, task, states.RUNNING))
    reporting.done(keys)
    assert agent.acknowledged == [], "the newer report replaced the older one before that was known to be stored"
    assert states_of(reporting.decide(snapshot(task), keys, 0)) == [states.RUNNING]
    reporting.done(keys)
    assert agent.acknowledged == [1, 2]


def test_reports_on_tasks_that_nobody_knows_are_acknowledged_and_forgotten() -> None:
    agent, reporting = Agent(), Reporting()
    keys = reporting.submit(agent, report(3, build.task(1), states.RUNNING))
    assert reporting.decide(snapshot(), keys, 0) == plan.NOTHING
    reporting.done(keys)
    assert agent.acknowledged == [3]


def test_an_empty_report_is_acknowledged_at_once() -> None:
    agent, reporting = Agent(), Reporting()
    assert reporting.submit(agent, wire.StatusReport(sequence=4)) == frozenset()
    assert agent.acknowledged == [4]


def test_a_conflict_loses_no_report() -> None:
    task, agent, reporting = build.task(1, states.ASSIGNED), Agent(), Reporting()
    keys = reporting.submit(agent, report(1, task, states.RUNNING))
    reporting.decide(snapshot(task), keys, 0)  # … and the store refused
    assert states_of(reporting.decide(snapshot(task), keys, 0)) == [states.RUNNING]
