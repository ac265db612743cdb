"""What must hold of neighbours that have to be or must not be, at the moment at which a task was placed, and of tasks
that are moved only so that a service is spread again.

A commit is judged as a whole: who has to be near to another may be placed together with it.
"""

from collections.abc import Iterator, Mapping

from controlplane.core import leaving, tasks
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import particulars, zones
from tests.sim.violation import Violation

Objects = Mapping[str, kinds.StoredObject]
MINUTE_MS = 60_000
NEIGHBOURS, FEW_MOVES = "neighbours", "few moves"


class NeighbourRules:
    """Follows every commit. `spreads`: not so where nodes are filled up."""

    def __init__(self, *, spreads: bool) -> None:
        self._spreads = spreads
        self._placed: list[pb.Task] = []
        self._moved: list[pb.Task] = []

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Takes in one change of a commit."""
        if isinstance(before, pb.Task) and isinstance(after, pb.Task) and after.node_id and not before.node_id:
            self._placed.append(after)
        if before is None and isinstance(after, pb.Task) and after.replaces and after.moved_because != leaving.DRAINED:
            self._moved.append(after)

    def check(self, objects: Objects, templates: Mapping[str, pb.TaskTemplate]) -> None:
        """The commit is through. `objects`: what is stored after it. Raises Violation."""
        placed, self._placed = self._placed, []
        moved, self._moved = self._moved, []
        nodes = {one.meta.id: one for one in objects.values() if isinstance(one, pb.Node)} if placed else {}
        for task in placed:
            if task.node_id in nodes:
                _check_near(objects, templates, nodes, task)
                _check_apart(objects, templates, task)
        for task in moved:
            if not self._spreads:
                raise Violation(FEW_MOVES, f"task {task.meta.id} is moved, and nodes are to be filled up")
            _check_moves(objects, task)


def _others(objects: Objects, task: pb.Task) -> Iterator[pb.Task]:
    """The tasks of its namespace that have not ended."""
    for one in objects.values():
        if not isinstance(one, pb.Task) or states.is_terminal(one.status.state):
            continue
        if one.meta.id != task.meta.id and one.meta.namespace == task.meta.namespace:
            yield one


def _check_near(
    objects: Objects, templates: Mapping[str, pb.TaskTemplate], nodes: Mapping[str, pb.Node], task: pb.Task
) -> None:
    """Those that are told to stop are no company. All ask for the zone."""
    zone = zones.of(nodes[task.node_id])
    for wish in templates[task.revision_id].placement.near:
        company = [one for one in _others(objects, task) if one.service == wish.service and tasks.is_live(one)]
        known = {zones.of(nodes[one.node_id]) for one in company if one.node_id in nodes}
        if not wish.weight and zone not in known:
            raise Violation(NEIGHBOURS, f"task {task.meta.id} is in zone {zone}, and {wish.service} is not")


def _check_apart(objects: Objects, templates: Mapping[str, pb.TaskTemplate], task: pb.Task) -> None:
    """In both directions. All ask for nodes of their own."""
    unwanted = particulars.strangers(templates[task.revision_id], task.service)
    for one in _others(objects, task):
        unwilling = task.service in particulars.strangers(templates[one.revision_id], one.service)
        if one.node_id == task.node_id and (one.service in unwanted or unwilling):
            raise Violation(NEIGHBOURS, f"task {task.meta.id} is on the node of {one.meta.id}, and has to be apart")


def _check_moves(objects: Objects, task: pb.Task) -> None:
    """Unless a person wanted it spread now. When a task counts as made is the leader's to say, here as there."""
    service = objects.get(f"/orch/service/{task.meta.namespace}/{task.service}")
    if not isinstance(service, pb.Service) or service.status.observed_generation != service.meta.generation:
        return
    most = service.spec.rebalance.max_moves_per_minute
    since = task.meta.created_at - MINUTE_MS
    moved = [
        one.meta.id
        for one in objects.values()
        if isinstance(one, pb.Task)
        and (one.meta.namespace, one.service) == (task.meta.namespace, task.service)
        and one.replaces
        and one.meta.created_at > since
    ]
    if most and len(moved) > most and not service.spec.rebalance_asked_at:
        raise Violation(FEW_MOVES, f"{', '.join(sorted(moved))} are moved within a minute, and {most} may be")
