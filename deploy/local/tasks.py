"""What the control plane says of a service's tasks, for the demo and the tests."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from deploy.local import trust
from deploy.local.nodes import ask as ask_nodes
from deploy.local.plan import Plan
from orchctl import client
from protos.orch.v1 import control_pb2, objects_pb2

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


def ask(plan: Plan, service: str = "") -> list[objects_pb2.Task]:
    """All tasks of a service, whatever their state; of all services when none is named."""
    with trust.reach(plan) as control:
        return listed(control, service)


def listed(control: "ControlStub", service: str = "") -> list[objects_pb2.Task]:
    """The same, over a connection that is there."""
    answer = control.List(control_pb2.ListRequest(kind="task", service=service), timeout=client.CALL_TIMEOUT_S)
    return [one.task for one in answer.objects]


def running(plan: Plan, service: str = "") -> list[objects_pb2.Task]:
    """Those that run, are ready, and are to go on, by slot."""
    return working(ask(plan, service))


def working(tasks: Iterable[objects_pb2.Task]) -> list[objects_pb2.Task]:
    """Likewise, of these."""
    wanted = [task for task in tasks if task.desired_state == objects_pb2.DESIRED_STATE_RUNNING]
    up = [task for task in wanted if task.status.state == objects_pb2.TASK_STATE_RUNNING and task.status.ready]
    return sorted(up, key=lambda task: task.slot)


def whole(plan: Plan, service: str, replicas: int, *, but_not_on: str = "") -> list[objects_pb2.Task] | None:
    """The running tasks, when there is exactly one for each of the replicas; those on one node (id) do not count."""
    return each_once((task for task in ask(plan, service) if task.node_id != but_not_on), replicas)


def each_once(tasks: Iterable[objects_pb2.Task], replicas: int) -> list[objects_pb2.Task] | None:
    """Likewise, of these."""
    up = working(tasks)
    return up if [task.slot for task in up] == list(range(1, replicas + 1)) else None


def node_names(plan: Plan) -> dict[str, str]:
    """Names of nodes by their ids."""
    return {node.id: node.name for node in ask_nodes(plan)}
