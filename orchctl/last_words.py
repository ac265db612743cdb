"""The end of what a task printed, for the pages of tasks that crash: mostly it says why.

The rule: it is an addition. When the logs cannot be read (another instance leads, the node is away), the page says so
and goes on.
"""

from collections.abc import Iterable, Mapping, Sequence

from orchctl import client, errors
from protos import crashes, states
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

LINES = 10
MOST_TASKS = 2
"""On a service's page; the others mostly say the same."""


def are_worth_telling(task: pb.Task) -> bool:
    """It crashes again and again, or has ended badly."""
    return crashes.is_looping(task) or task.status.state == states.FAILED


def of_crashing(server: str, tasks: Iterable[pb.Task]) -> Mapping[str, Sequence[str]]:
    """By name, of the tasks of a service that crash again and again: the youngest first."""
    looping = [task for task in tasks if crashes.is_looping(task) and task.node_id]
    youngest = sorted(looping, key=lambda task: (-task.meta.created_at, task.meta.name))[:MOST_TASKS]
    return {task.meta.name: of(server, task) for task in youngest}


def of(server: str, task: pb.Task) -> Sequence[str]:
    """The last lines of one task."""
    request = control.LogsRequest(namespace=task.meta.namespace, task=task.meta.id, tail=LINES)
    try:
        return client.at_leader(server, lambda address: _read(address, request)) or ["(nothing)"]
    except errors.OrchctlError as error:
        return [f"(its output cannot be read: {error.message})"]


def _read(server: str, request: control.LogsRequest) -> Sequence[str]:
    lines: list[str] = []
    with client.connect(server) as stub:
        for batch in stub.Logs(request, timeout=client.CALL_TIMEOUT_S):
            lines += [f"({batch.notice})"] if batch.notice else []
            lines += [line.text.decode(errors="replace").rstrip() for line in batch.lines]
    return lines
