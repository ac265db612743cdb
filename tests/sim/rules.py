"""What must hold after every commit, and on the machines all the time. Checked on the bytes that are written.

A rule is told from the design, not from the code: where both need a formula (the brake), it is written here again.
"""

import asyncio
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from agent.core.record import Record
from controlplane.store import api, typed
from protos import containers, kinds, states
from protos.families import FAMILIES
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import placement_rules, rollout_rules, told
from tests.sim.absence_rules import AbsenceRules
from tests.sim.crowd_rules import CrowdRules
from tests.sim.disruption_rules import DisruptionRules
from tests.sim.fence_rules import FenceRules
from tests.sim.neighbour_rules import NeighbourRules
from tests.sim.network_rules import NetworkRules
from tests.sim.story import Story
from tests.sim.update_rules import UpdateRules
from tests.sim.violation import Violation

Slot = tuple[str, str]
"""The service's name and the slot's number, as they stand in a task's name."""
TOGETHER_MS = 30_000
PACE, PACE_S = 12, 10.0
"""So many tasks, and no more, may be made for one slot within so many seconds."""
DOUBLE_S = 45.0
"""How long two containers of one slot and revision may run side by side while everybody can reach everybody: stopping
takes up to ten seconds for the main one and for each of two sidecars, a lost assignment is noticed after two
heartbeats."""


class Rules:
    """Follows every commit."""

    def __init__(self, story: Story, *, spreads: bool = True) -> None:
        self.objects: dict[str, kinds.StoredObject] = {}
        self.commits = 0
        self.network = NetworkRules()
        self.placement = placement_rules.PlacementRules()
        self.crowds = CrowdRules()
        self.disruption = DisruptionRules()
        self.fences = FenceRules()
        self.absences = AbsenceRules()
        self.updates = UpdateRules()
        self.neighbours = NeighbourRules(spreads=spreads)
        self._story = story
        self._templates: dict[str, pb.TaskTemplate] = {}  # by the revision's id
        self._made: dict[Slot, deque[float]] = defaultdict(lambda: deque(maxlen=PACE))
        self._double_since: dict[Slot, float] = {}
        self._told_to_stop: dict[str, tuple[float, int]] = {}  # when, and for how many seconds it drains

    def check(self, revision: int, events: Sequence[api.Event], fence: api.Fence | None) -> None:
        """Called by the store with each commit. Raises Violation."""
        touched: set[type] = set()
        spoken = told.Commit(people=fence is None)
        for event in events:
            kind = kinds.kind_of_key(event.key)
            if kind is None:
                continue
            self.commits += 1
            before = self.objects.get(event.key)
            after = typed.decode(event.key, event.value, revision) if event.value is not None else None
            self._story.tell(kind, event.key, before, after)
            _check_writer(event.key, before, after, fence)
            spoken.note(before, after)
            self.updates.note(before, after)
            self.neighbours.note(before, after)
            self._check_task(before, after)
            self._check_brake(before, after)
            rollout_rules.check(self.objects, before, after)
            self.disruption.check(self.objects, before, after)
            self.network.note(before, after)
            self.fences.note(after)
            self.absences.check(before, after)
            self.placement.note(before, after)
            self.crowds.note(before, after)
            self._replace(event.key, after)
            touched.add(kind.message)
        if pb.Task in touched:
            self._check_tasks()
        spoken.check()
        self.updates.check(self.objects)
        self.neighbours.check(self.objects, self.templates())
        if pb.Event in touched:
            told.check_kept([one for one in self.objects.values() if isinstance(one, pb.Event)])
        if pb.Node in touched:
            for family in FAMILIES:
                _check_unique("subnet", {node.meta.id: family.get(node.status, "subnet") for node in self.nodes()})

    def nodes(self) -> list[pb.Node]:
        return [one for one in self.objects.values() if isinstance(one, pb.Node)]

    def tasks(self) -> list[pb.Task]:
        return [one for one in self.objects.values() if isinstance(one, pb.Task)]

    def services(self) -> list[pb.Service]:
        return [one for one in self.objects.values() if isinstance(one, pb.Service)]

    def _replace(self, key: str, after: kinds.StoredObject | None) -> None:
        if after is None:
            gone = self.objects.pop(key, None)
            if isinstance(gone, pb.Revision):
                del self._templates[gone.meta.id]
            return
        self.objects[key] = after
        if isinstance(after, pb.Revision):
            self._templates[after.meta.id] = after.template

    def watch_machines(self, running: Mapping[str, frozenset[str]], *, in_order: bool, now_s: float) -> None:
        """Called again and again. `running`: containers by node id. `in_order`: everybody can reach everybody."""
        # One that is moved goes on until the other is ready, however long that takes.
        moved = {task.replaces for task in self.tasks() if task.replaces}
        revisions = {task.meta.id: task.revision_id for task in self.tasks()}
        tasks = {node_id: {containers.split(name)[0] for name in names} for node_id, names in running.items()}
        self.fences.check(tasks)
        slots = Counter((_slot_of(name), revisions.get(name)) for names in tasks.values() for name in names - moved)
        double = {slot for (slot, _), count in slots.items() if count > 1} if in_order else set()
        self._double_since = {slot: self._double_since.get(slot, now_s) for slot in sorted(double)}
        for slot, since_s in self._double_since.items():
            if now_s - since_s > DOUBLE_S:
                names = sorted(name for names in tasks.values() for name in names if _slot_of(name) == slot)
                raise Violation(
                    "no doubles", f"{' and '.join(names)} have run side by side for {now_s - since_s:.0f} s"
                )

    def check_crowds(self, machines: Iterable[tuple[Iterable[str], Mapping[str, Record]]]) -> None:
        """Called again and again with what runs on each node, and what its agent has noted."""
        tasks, templates = {task.meta.id: task for task in self.tasks()}, self.templates()
        for running, records in machines:
            self.crowds.check_machine(running, records, tasks, templates)

    def check_stops(self, stops: Iterable[tuple[str, float]]) -> None:
        """Called again and again with the stop signals that tasks have got, and when."""
        for task_id, at_s in stops:
            told_s, drain_s = self._told_to_stop.get(task_id, (-math.inf, 0))
            if at_s < told_s + drain_s:
                raise Violation(
                    "drained before stopped",
                    f"task {task_id} was told to stop, and got its signal {at_s - told_s:.1f} s later, "
                    f"not the {drain_s} s that its connections have",
                )

    def check_ready(self, answered_well: Callable[[str, int], bool]) -> None:
        """Called again and again: what counts as ready, and has a probe for it, has answered."""
        templates = self.templates()
        for task in self.tasks():
            guarded = templates[task.revision_id].container.probes.readiness.HasField("http")
            if guarded and task.status.ready and not answered_well(task.meta.id, task.status.started_at):
                raise Violation("the ready have answered", f"task {task.meta.id} counts as ready and was never asked")

    def templates(self) -> Mapping[str, pb.TaskTemplate]:
        return self._templates

    def templates_of(self, service: pb.Service) -> list[pb.TaskTemplate]:
        """Of its revisions that are kept."""
        known = [one for one in self.objects.values() if isinstance(one, pb.Revision)]
        return [one.template for one in known if kinds.service_of(one) == kinds.qualified(service)]

    def _note_stop(self, before: pb.Task, after: pb.Task) -> None:
        """From when on it knows at the earliest that it is to stop: nothing can be drained sooner."""
        unasked = before.desired_state < pb.DESIRED_STATE_SHUTDOWN
        stops = after.desired_state >= pb.DESIRED_STATE_SHUTDOWN or after.status.state == states.ORPHANED
        template = self._templates.get(after.revision_id)
        if before.status.state == states.RUNNING and unasked and stops and template and template.container.ports:
            now_s = asyncio.get_running_loop().time()
            self._told_to_stop.setdefault(after.meta.id, (now_s, template.drain_seconds))

    def _check_task(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        if isinstance(before, pb.Task) and isinstance(after, pb.Task):
            _check_rise(before, after)
            self._note_stop(before, after)
            self.placement.check(before, after, self)
            if before.status.state != after.status.state == states.ORPHANED:
                self._check_loss(after)
        elif isinstance(after, pb.Task):
            self._check_pace(after)
        elif isinstance(before, pb.Task) and not states.is_terminal(before.status.state):
            raise Violation("the living stay", f"task {before.meta.id} was removed while {_word(before)}")

    def _check_pace(self, task: pb.Task) -> None:
        now_s = asyncio.get_running_loop().time()
        made = self._made[_slot_of(task.meta.id)]
        if len(made) == PACE and now_s - made[0] < PACE_S:
            raise Violation("pace", f"{PACE + 1} tasks were made for the slot of {task.meta.id} within {PACE_S:g} s")
        made.append(now_s)

    def _check_loss(self, task: pb.Task) -> None:
        """A task is given up only when its node is lost, and not when most nodes vanished together with it."""
        node = next((one for one in self.nodes() if one.meta.id == task.node_id), None)
        if node is None:
            return
        if node.status.state == pb.NODE_STATE_READY:
            raise Violation("brake", f"task {task.meta.id} was given up; its node {node.meta.name} is ready")
        together, ready = self._vanished_with(node)
        if together > ready and node.spec.lost_since != node.status.since:
            raise Violation("brake", f"task {task.meta.id} was given up when {together} nodes vanished, {ready} stayed")

    def _check_brake(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """A node says that its tasks are held only when it is down, and most nodes vanished together with it."""
        if (
            not isinstance(after, pb.Node)
            or not after.status.held
            or (isinstance(before, pb.Node) and before.status.held)
        ):
            return
        together, ready = self._vanished_with(after)
        if after.status.state != pb.NODE_STATE_DOWN or together <= ready or after.spec.lost_since == after.status.since:
            raise Violation("brake", f"{after.meta.name} is held; {together} nodes vanished, {ready} stayed")

    def _vanished_with(self, node: pb.Node) -> tuple[int, int]:
        """How many were lost together with it, itself included, and how many are there."""
        lost = [one for one in self.nodes() if one.status.state != pb.NODE_STATE_READY]
        together = sum(abs(one.status.since - node.status.since) <= TOGETHER_MS for one in lost)
        return together, len(self.nodes()) - len(lost)

    def _check_tasks(self) -> None:
        alive = [task for task in self.tasks() if not states.is_terminal(task.status.state)]
        rollout_rules.check_places(alive)
        for family in FAMILIES:
            _check_unique("address", {task.meta.id: family.get(task.status, "address") for task in alive})
        placement_rules.check_capacity(self.nodes(), alive, self.templates())


def _slot_of(task_id: str) -> Slot:
    """By its name: `web-1-x0000007` → (`web`, `1`)."""
    service, slot, _ = task_id.rsplit("-", 2)
    return service, slot


def _word(task: pb.Task) -> str:
    return states.word(task.status.state)


def _check_writer(
    key: str, before: kinds.StoredObject | None, after: kinds.StoredObject | None, fence: api.Fence | None
) -> None:
    """Specs are people's; everything else is the leader's, whose every commit carries its fence."""
    if isinstance(after or before, pb.Task | pb.Revision):
        if fence is None:
            raise Violation("one writer", f"{key} was written without the leader's fence")
    elif isinstance(before, pb.Service | pb.Node) and isinstance(after, pb.Service | pb.Node):
        if fence is not None and before.spec != after.spec:
            raise Violation("one writer", f"the spec of {key} was changed by the leader")
        if fence is None and before.status != after.status:
            raise Violation("one writer", f"the status of {key} was changed without the leader's fence")


def _check_rise(before: pb.Task, after: pb.Task) -> None:
    name = after.meta.id
    edge = (before.status.state, after.status.state)
    if edge[0] != edge[1] and edge not in states.TRANSITIONS:
        raise Violation("states rise", f"task {name} went from {states.word(edge[0])} to {states.word(edge[1])}")
    if after.desired_state < before.desired_state:
        raise Violation("states rise", f"task {name}: desired {before.desired_state} became {after.desired_state}")
    if before.node_id and after.node_id != before.node_id:
        raise Violation("a task never moves", f"task {name} moved from {before.node_id} to {after.node_id}")
    if (before.slot, before.service, before.revision_id) != (after.slot, after.service, after.revision_id):
        raise Violation("a task never moves", f"task {name} became another task")


def _check_unique(what: str, values: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for owner, value in sorted(values.items()):
        if value and value in owners:
            raise Violation("nothing is given twice", f"{what} {value} was given to {owners[value]} and to {owner}")
        owners[value] = owner
