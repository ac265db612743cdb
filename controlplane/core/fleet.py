"""The nodes as the scheduler sees them: one row a node, one array a property, so that a filter is one comparison."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protos import containers, states
from protos.orch.v1 import objects_pb2 as pb

DEFAULT_TASKS = 1_000
"""How many tasks a node takes when its agent does not say."""

Mask = npt.NDArray[np.bool_]
Amounts = npt.NDArray[np.int64]
HostPort = tuple[int, int]
"""Protocol and number."""


def host_ports(template: pb.TaskTemplate) -> frozenset[HostPort]:
    """The ports of a node that a task of this template takes."""
    return frozenset(
        (port.protocol or pb.PROTOCOL_TCP, port.published)
        for port in template.container.ports
        if port.published and port.mode == pb.PUBLISH_MODE_HOST
    )


@dataclass(slots=True, kw_only=True)
class Fleet:
    """What nodes have left. Rows are in the order of names. `take` books a task, so that the next one sees it."""

    nodes: Sequence[pb.Node]
    row_of: Mapping[str, int]
    ready: Mask
    active: Mask
    free_cpu: Amounts
    free_memory: Amounts
    free_tasks: Amounts
    load: Amounts
    """Tasks on the node, whatever their service."""
    ports: list[dict[HostPort, str]]
    """Ports that are taken on the node, and by whom."""
    everywhere: Mapping[HostPort, str]
    """Ports that services publish on every node, and which."""

    def take(self, row: int, template: pb.TaskTemplate, holder: str) -> None:
        """Books a task of this template on a node. `holder`: its service, as messages name it."""
        reserved = containers.reserved(template)
        self.free_cpu[row] -= reserved.cpu
        self.free_memory[row] -= reserved.memory
        self.free_tasks[row] -= 1
        self.load[row] += 1
        self.ports[row].update(dict.fromkeys(host_ports(template), holder))

    def holders(self, row: int, template: pb.TaskTemplate) -> dict[HostPort, str]:
        """Those of the ports that a template takes that are not free on a node."""
        taken = {port: self.ports[row].get(port) or self.everywhere.get(port, "") for port in host_ports(template)}
        return {port: holder for port, holder in taken.items() if holder}


def holder(task: pb.Task) -> str:
    """How messages name who takes something."""
    return f"Service {task.meta.namespace}/{task.service}"


def survey(
    nodes: Iterable[pb.Node],
    tasks: Collection[pb.Task],
    templates: Mapping[str, pb.TaskTemplate],
    everywhere: Mapping[HostPort, str],
) -> Fleet:
    """The fleet with all tasks that have a node and have not ended. `templates` by revision id; `everywhere`: the ports
    that services publish on every node.
    """
    ordered = sorted(nodes, key=lambda node: (node.meta.name, node.meta.id))
    capacities = [node.status.description.capacity for node in ordered]
    fleet = Fleet(
        nodes=ordered,
        row_of={node.meta.id: row for row, node in enumerate(ordered)},
        ready=np.array([node.status.state == pb.NODE_STATE_READY for node in ordered], dtype=np.bool_),
        active=np.array([node.spec.availability in _ACTIVE for node in ordered], dtype=np.bool_),
        free_cpu=np.array([capacity.cpu for capacity in capacities], dtype=np.int64),
        free_memory=np.array([capacity.memory for capacity in capacities], dtype=np.int64),
        free_tasks=np.array([capacity.tasks or DEFAULT_TASKS for capacity in capacities], dtype=np.int64),
        load=np.zeros(len(ordered), dtype=np.int64),
        ports=[{} for _ in ordered],
        everywhere=everywhere,
    )
    nothing = pb.TaskTemplate()
    for task in tasks:
        row = fleet.row_of.get(task.node_id)
        if row is not None and not states.is_terminal(task.status.state):
            fleet.take(row, templates.get(task.revision_id, nothing), holder(task))
    return fleet


_ACTIVE = frozenset({pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE})
