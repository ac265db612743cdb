"""Services on nodes, without a cluster: every planner of a leader that moves tasks looks, and tasks go the way that
their image says (`rollouts`).

A node is there as long as its agent has a session. What it has goes on while it is lost, and tells nobody.
"""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.controllers import dependencies, drains, nodes, rebalancing, scheduling, services
from controlplane.controllers.loop import Planner
from controlplane.core import edits, garbage, plan, tasks
from controlplane.core import nodes as records
from controlplane.dispatcher.sessions import Sessions
from controlplane.store.snapshots import Editor, Snapshot
from protos import kinds, states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support.build import NOW_MS, Shelf
from tests.support.rollouts import World, told

MOST_ROUNDS = 20
"""So often planners may give each other something to do before it counts as without an end."""
RANGES = nodes.Ranges(cluster="10.112.0.0/16", subnet_bits=24, services="10.113.0.0/16")


class Agent:
    """A session of which it only counts that it is there."""

    applied, back_within_ms = 0, 0

    def __init__(self, name: str, room: int) -> None:
        description = pb.NodeDescription(
            address=f"192.0.2.{name.strip('n')}", capacity=pb.NodeCapacity(cpu=4_000, memory=2**30, tasks=room)
        )
        self.info = records.Session(session_id="s", node_id=name, node_name=name, description=description, labels={})

    def wake(self) -> None:
        raise AssertionError("nobody is assigned anything here")

    def open_stream(self, request: wire.OpenStream) -> None:
        raise AssertionError(f"nobody opens {request.stream_id} here")

    def acknowledge(self, sequence: int) -> None:
        raise AssertionError(f"nobody reports {sequence} here")

    def tell(self, message: wire.LeaderMessage) -> None:
        raise AssertionError(f"nobody says {message} here")

    def end(self, why: str) -> None:
        raise AssertionError(why)


class Cluster(World):
    """Some services, and nodes whose ids are their names, with room for so many tasks each."""

    def __init__(self, *wanted: pb.Service, joined: Iterable[str] = ("n1", "n2", "n3"), room: int = 100) -> None:
        super().__init__()
        self.shelf = Shelf(wanted)
        self._room = room
        self._agents = {name: Agent(name, room) for name in joined}
        self._sessions = Sessions()
        for agent in self._agents.values():
            self._sessions.add(agent)
        outlook = scheduling.Outlook()
        self._planners: Sequence[Planner] = (
            nodes.NodeRecords(self._sessions, RANGES, 0),
            nodes.NodeLoss(self._sessions, lambda: self.now_ms),
            services.Services(self._names, RANGES.services),
            dependencies.Dependencies(),
            rebalancing.Rebalancing(self._names, outlook, 6),
            scheduling.Scheduling(outlook),
            drains.Drains(),
        )

    # What is there ----------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, pb.Node]:
        return {node.meta.name: node for node in self.shelf.all(pb.Node)}

    def homes(self) -> list[str]:
        """Where the ready tasks are."""
        return sorted(task.node_id for task in filter(tasks.is_ready, self.tasks))

    def is_connected(self, name: str) -> bool:
        """Whether the node's agent has a session."""
        return self._sessions.get(name) is not None

    # What people do, and what becomes of nodes ------------------------------------------------------------------------

    def delete(self, *names: str) -> None:
        """Services with these names, at once."""
        for service in [one for one in self.shelf.all(pb.Service) if one.meta.name in names]:
            self.shelf.put(edits.mark_deleted(service, now_ms=self.now_ms))
        self.transcript.append(f"person: delete {', '.join(names)}")

    def set_availability(self, name: str, availability: pb.Availability.ValueType) -> None:
        """Of a node."""
        word = pb.Availability.Name(availability).removeprefix("AVAILABILITY_").lower()
        self._update(name, f"{name} is set to {word}", availability=availability)

    def label(self, name: str, **labels: str) -> None:
        """Of a node."""
        said = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        self._update(name, f"label {name} {said}", set_labels=labels)

    def connect(self, name: str) -> None:
        """A node joins, or is back."""
        self._sessions.add(self._agents.setdefault(name, Agent(name, self._room)))
        self.transcript.append(f"node {name}: its agent connects")

    def lose(self, name: str) -> None:
        """A node is out of reach from now on."""
        self._sessions.remove(self._agents[name])
        self.transcript.append(f"node {name}: its agent is gone")

    def remove(self, name: str) -> None:
        """The record of a node that is down."""
        node = self.nodes[name]
        edits.check_removable(node, ())
        self.shelf.apply(plan.Plan(changes=(plan.Remove(value=node, why="a person says so"),)))
        self.transcript.append(f"person: delete node {name}")

    def _update(self, name: str, said: str, **fields: object) -> None:
        fields = {"availability": pb.AVAILABILITY_UNSPECIFIED, "set_labels": {}, "remove_labels": ()} | fields
        self.shelf.put(edits.update_node(self.nodes[name], now_ms=self.now_ms, **fields))  # type: ignore[arg-type]  # fields by name
        self.transcript.append(f"person: {said}")

    # What time does ---------------------------------------------------------------------------------------------------

    def look(self) -> plan.Plan:
        """Every planner looks until none has anything more to do; what they did."""
        made: list[plan.Change] = []
        for _ in range(MOST_ROUNDS):
            before = len(made)
            snapshot = _snapshot(self.shelf)
            for planner in self._planners:
                if changes := self._ask(planner, snapshot):
                    made += changes
                    snapshot = _snapshot(self.shelf)
            if len(made) == before:
                break
        else:
            raise AssertionError("planners go on for ever:\n" + "\n".join(self.transcript[-20:]))
        self._collect_garbage()
        return plan.Plan(changes=tuple(made))

    def _collect_garbage(self) -> None:
        for service in self.shelf.all(pb.Service):
            mine = [task for task in self.tasks if task.service == service.meta.name]
            revisions = [one for one in self.shelf.all(pb.Revision) if one.service == service.meta.name]
            self.shelf.apply(garbage.collect(mine, revisions, service))

    def _ask(self, planner: Planner, snapshot: Snapshot) -> Sequence[plan.Change]:
        made = self.shelf.apply(planner.decide(snapshot, frozenset(planner.all_keys(snapshot)), self.now_ms))
        self.transcript += [f"{(self.now_ms - NOW_MS) / 1000:g} s: {line}" for line in told(made.changes)]
        return made.changes

    def _advance(self, task: pb.Task) -> None:
        """It is the agent of its node that takes the step."""
        if not task.node_id or not self.is_connected(task.node_id):
            return
        if task.desired_state != pb.DESIRED_STATE_READY:
            super()._advance(task)
        elif task.status.state != states.READY:
            self._move(task, states.READY)


def _snapshot(shelf: Shelf) -> Snapshot:
    editor = Editor()
    for kind in kinds.KINDS:
        for value in shelf.all(kind.message):
            editor.replace(kind, kinds.key(value), value)
    return editor.snapshot()
