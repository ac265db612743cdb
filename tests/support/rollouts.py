"""One service with its tasks, without a cluster: the planner runs, and tasks go the way that their image says.

    good       ready in the next step
    slow       never ready
    unplaced   taken by no node
    broken     ends badly at its start
    uneven     broken in slot 1, good in the others
    crashing   ready, then restarted in place a moment after its start
    job        ready in the next step, and ends well in the one after that

Once it is `mended`, every image is good.
`step` is one look of the leader and one step of every task; `transcript` is what was done, to be read.
"""

from collections.abc import Iterable

from controlplane.core import garbage, plan, replicated, rollout_edits, tasks
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

STEP_MS = 1_000


class World:
    """Time passes by steps only."""

    def __init__(self, *, replicas: int = 3, image: str = "good:1", update: pb.UpdatePolicy | None = None) -> None:
        service = build.service(replicas=replicas, image=image)
        service.spec.update.CopyFrom(update or pb.UpdatePolicy())
        self.shelf = build.Shelf([service])
        self.now_ms = NOW_MS
        self.transcript: list[str] = []
        self.draining: frozenset[str] = frozenset()
        self.mended = False
        self.most_live = 0
        """The most live tasks that there ever were."""
        self._names = build.suffixes()

    # What is there ----------------------------------------------------------------------------------------------------

    @property
    def service(self) -> pb.Service:
        return self.shelf.all(pb.Service)[0]

    @property
    def rollout(self) -> pb.RolloutStatus:
        return self.service.status.rollout

    @property
    def tasks(self) -> list[pb.Task]:
        return self.shelf.all(pb.Task)

    @property
    def unended(self) -> list[pb.Task]:
        return [task for task in self.tasks if not states.is_terminal(task.status.state)]

    def revision(self, number: int) -> pb.Revision:
        return next(one for one in self.shelf.all(pb.Revision) if one.number == number)

    def images(self) -> list[str]:
        """Of the ready tasks, by slot."""
        templates = {one.meta.id: one.template.container.image for one in self.shelf.all(pb.Revision)}
        ready = sorted(filter(tasks.is_ready, self.tasks), key=lambda task: (task.slot, task.target_node_id))
        return [templates[task.revision_id] for task in ready]

    # What people do ---------------------------------------------------------------------------------------------------

    def apply(self, image: str) -> None:
        """Another image."""
        self._edit(lambda spec: _set_image(spec, image), f"apply {image}")

    def scale(self, replicas: int) -> None:
        self._edit(lambda spec: setattr(spec, "replicas", replicas), f"scale to {replicas}")

    def ask(self, action: api.RolloutAction.ValueType, *, revision: int = 0) -> str:
        """What the API does for `orchctl rollout …`; what it says. Raises its refusals."""
        wish = rollout_edits.Wish(known=self.shelf.all(pb.Revision), revision=revision, now_ms=self.now_ms)
        changed, said = rollout_edits.change(self.service, action, wish)
        self.shelf.put(plan.copy(changed))
        self.transcript.append(f"person: {api.RolloutAction.Name(action).removeprefix('ROLLOUT_ACTION_').lower()}")
        return said

    def _edit(self, edit: object, said: str) -> None:
        changed = plan.copy(self.service)
        edit(changed.spec)  # type: ignore[operator]  # a function of the spec
        changed.meta.generation += 1
        self.shelf.put(changed)
        self.transcript.append(f"person: {said}")

    # What time does ---------------------------------------------------------------------------------------------------

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.step()

    def until(self, state: pb.RolloutState.ValueType, *, within: int = 100) -> None:
        """Steps until the rollout is there."""
        for _ in range(within):
            if self.rollout.state == state and self.service.status.observed_generation == self.service.meta.generation:
                return
            self.step()
        raise AssertionError(f"it does not come to {pb.RolloutState.Name(state)}: {self.service.status.message}")

    def step(self) -> None:
        """The leader looks until it has nothing more to do; then every task takes one step."""
        self.look()
        for task in self.unended:
            self._advance(task)
        self.look()
        self.now_ms += STEP_MS

    def look(self) -> plan.Plan:
        """One look of any leader: nothing is remembered outside the store."""
        situation = replicated.Situation(
            service=self.service,
            revisions=self.shelf.all(pb.Revision),
            tasks=self.tasks,
            draining=self.draining,
            now_ms=self.now_ms,
            nodes=self.shelf.all(pb.Node),
        )
        made = self.shelf.apply(replicated.reconcile(situation, self._names))
        self.transcript += [f"{(self.now_ms - NOW_MS) / 1000:g} s: {line}" for line in told(made.changes)]
        self.most_live = max(self.most_live, sum(map(tasks.is_live, self.tasks)))
        self.shelf.apply(garbage.collect(self.tasks, self.shelf.all(pb.Revision), self.service))
        return made

    def end(self, task: pb.Task, state: states.State, *, ran_ms: int = 0) -> None:
        """Something happens to a task."""
        self._move(task, state, ran_ms=ran_ms)

    def make_ready(self, task: pb.Task) -> None:
        """A slow one works at last."""
        self._move(task, states.RUNNING, ready=True)

    def restart(self, task: pb.Task, *, ran_ms: int) -> None:
        """Its container ended that long after its start, and was started again in place."""
        self._move(task, states.RUNNING, ready=True, restarts=1, first_run=ran_ms)

    def _advance(self, task: pb.Task) -> None:
        if not tasks.is_live(task):
            self._move(task, states.SHUTDOWN)
            return
        revision = next(one for one in self.shelf.all(pb.Revision) if one.meta.id == task.revision_id)
        kind = "good" if self.mended else revision.template.container.image.partition(":")[0]
        if kind == "uneven":
            kind = "broken" if task.slot == 1 else "good"
        if kind == "unplaced":
            self._refuse(task)
        elif task.status.state != states.RUNNING:
            state = states.FAILED if kind == "broken" else states.RUNNING
            self._move(task, state, ready=kind in {"good", "crashing", "job"})
        elif kind == "crashing" and not task.status.restarts:
            self.restart(task, ran_ms=10)
        elif kind == "job":
            self._move(task, states.COMPLETE)
        elif kind == "good" and not task.status.ready:
            self.make_ready(task)

    def _refuse(self, task: pb.Task) -> None:
        changed = plan.copy(task)
        changed.status.CopyFrom(pb.TaskStatus(state=states.PENDING, at=task.status.at, message="no node takes it"))
        changed.status.refusals.add(filter="resources", nodes=3)
        if changed != task:
            self.shelf.put(changed)

    def _home_of(self, task: pb.Task) -> str:
        return f"n{task.slot}" if f"n{task.slot}" not in self.draining else f"n{task.slot}0"

    def _move(self, task: pb.Task, state: states.State, *, ran_ms: int = 0, **status: object) -> None:
        changed = plan.copy(task)
        changed.node_id = changed.node_id or changed.target_node_id or self._home_of(task)
        words = {"message": "ended with exit code 1", "reason": "ExitCode"} if state == states.FAILED else {}
        times = {"at": self.now_ms, "started_at": self.now_ms - ran_ms, "finished_at": self.now_ms}
        changed.status.CopyFrom(pb.TaskStatus(state=state, **times, **words, **status))  # type: ignore[arg-type]
        self.shelf.put(changed)


def whole(*, replicas: int = 3, **update: object) -> World:
    """A service whose first revision is rolled out. `update`: fields of its policy."""
    update.setdefault("monitor", 1_000)
    world = World(replicas=replicas, update=pb.UpdatePolicy(**update))  # type: ignore[arg-type]  # fields by name
    world.until(pb.ROLLOUT_STATE_COMPLETED)
    world.steps(2)
    return world


def _set_image(spec: pb.ServiceSpec, image: str) -> None:
    spec.template.container.image = image


def told(changes: Iterable[plan.Change]) -> Iterable[str]:
    """What a reader wants to know: no bookkeeping of revisions, and of addresses that were given."""
    return [one.describe() for one in changes if not isinstance(one.value, pb.Revision | pb.Cluster)]
