"""Held tasks are found whichever of the things that they wait for comes; services for a while wake the leader."""

from controlplane.controllers.dependencies import Dependencies
from controlplane.controllers.expiry import Expiry
from controlplane.controllers.services import Services
from controlplane.core import plan
from controlplane.store import typed
from controlplane.store.snapshots import Change, Editor, Snapshot
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS


class World:
    """A store, and what changed in it last."""

    def __init__(self, *values: kinds.StoredObject) -> None:
        self._editor = Editor()
        self.last: Change | None = None
        for value in values:
            self.put(value)

    @property
    def snapshot(self) -> Snapshot:
        return self._editor.snapshot()

    def put(self, value: kinds.StoredObject | None, *, key: str = "") -> None:
        key = key or kinds.key(value)  # type: ignore[arg-type]  # one of the two is given
        kind = kinds.kind_of_key(key)
        assert kind is not None, key
        version = self._editor.version(key) + 1
        stored = typed.decode(key, typed.encode(value), version) if value is not None else None
        self.last = self._editor.replace(kind, key, stored)

    def woken(self, planner: Dependencies | Expiry | Services) -> set[str]:
        """The keys that the last change puts into the planner's queue."""
        assert self.last is not None, "nothing has changed"
        return set(planner.keys_of(self.last, self.snapshot))

    def decide(self, planner: Dependencies | Expiry | Services, now_ms: int = NOW_MS) -> plan.Plan:
        """What the planner makes of the last change."""
        return planner.decide(self.snapshot, frozenset(self.woken(planner)), now_ms)


def database(ready: int) -> pb.Service:
    service = build.service("db", replicas=1)
    service.status.CopyFrom(pb.ServiceStatus(replicas=1, running=1, ready=ready, observed_generation=1))
    return service


def web(**depends_on: "pb.DependencyCondition.ValueType") -> pb.Service:
    service = build.service("web")
    service.spec.depends_on.update(depends_on)
    return service


def held() -> pb.Task:
    task = build.task(1, states.READY, desired=pb.DESIRED_STATE_READY)
    task.waits_for = "db to be ready"
    return task


def let_go(made: plan.Plan) -> list[str]:
    tasks = [change.value for change in made.changes if isinstance(change.value, pb.Task)]
    return [task.meta.id for task in tasks if task.desired_state == pb.DESIRED_STATE_RUNNING]


def test_the_dependency_comes() -> None:
    """Its status says so, and nothing else changes."""
    task = held()
    world = World(web(db=pb.DEPENDENCY_CONDITION_READY), task, database(ready=0))
    assert not world.decide(Dependencies()).changes
    world.put(database(ready=1))
    assert let_go(world.decide(Dependencies())) == [task.meta.id]


def test_the_task_comes_late() -> None:
    """It was made by somebody who did not know yet that the dependency is there."""
    task = held()
    world = World(web(db=pb.DEPENDENCY_CONDITION_READY), database(ready=1), task)
    assert let_go(world.decide(Dependencies())) == [task.meta.id]


def test_the_wish_goes() -> None:
    """A service that depends on nothing any more lets its tasks go."""
    task = held()
    world = World(task, web())
    assert let_go(world.decide(Dependencies())) == [task.meta.id]


def test_the_dependency_goes_after_the_last_that_needs_it() -> None:
    """The end of that one is what wakes whoever has to delete it."""
    needed, user = database(ready=1), web(db=pb.DEPENDENCY_CONDITION_READY)
    needed.meta.deleted_at = user.meta.deleted_at = NOW_MS
    task = build.task(1, of="db", revision_id="db-1-id-db")
    world = World(user, build.revision(needed), task, needed)
    services = Services(build.suffixes(), "10.201.0.0/24")
    (told,) = [change.value for change in world.decide(services).changes if isinstance(change.value, pb.Service)]
    assert "it is deleted after web, which depends on it" in told.status.message
    world.put(None, key=kinds.key(user))
    assert "default/db" in world.woken(services)
    stops = [change.value for change in world.decide(services).changes if isinstance(change.value, pb.Task)]
    assert [one.desired_state for one in stops] == [pb.DESIRED_STATE_REMOVE]


def test_a_stopped_dependency_stops_after_the_last_task_that_needs_it() -> None:
    """The end of that task is what wakes whoever has to stop it."""
    needed, user = database(ready=1), web(db=pb.DEPENDENCY_CONDITION_READY)
    needed.spec.stopped = user.spec.stopped = True
    last = build.task(1)
    kept = build.task(1, of="db", revision_id="db-1-id-db")
    world = World(user, last, build.revision(needed), kept, needed)
    services = Services(build.suffixes(), "10.201.0.0/24")
    (told,) = [change.value for change in world.decide(services).changes if isinstance(change.value, pb.Service)]
    assert "it stops after web, which depends on it" in told.status.message
    last.status.state = states.SHUTDOWN
    world.put(last)
    stops = [change.value for change in world.decide(services).changes if isinstance(change.value, pb.Task)]
    assert kept.meta.id in {one.meta.id for one in stops if one.desired_state == pb.DESIRED_STATE_REMOVE}


def test_a_dependency_stops_when_its_user_is_to_run_again() -> None:
    """It was only the end of that one that it waited for."""
    needed, user = database(ready=1), web(db=pb.DEPENDENCY_CONDITION_READY)
    needed.spec.stopped = user.spec.stopped = True
    world = World(build.revision(needed), build.task(1), needed, user)
    user.spec.stopped = False
    user.meta.generation += 1
    world.put(user)
    assert "default/db" in world.woken(Services(build.suffixes(), "10.201.0.0/24"))


def test_only_services_for_a_while_are_looked_at() -> None:
    """And again when people change how long that is."""
    service = build.service()
    world = World(service)
    assert not world.woken(Expiry())
    service.spec.ttl, service.meta.created_at, service.meta.generation = 5_000, NOW_MS, 2
    world.put(service)
    assert world.decide(Expiry()).wake_at == NOW_MS + 5_000
    service.status.message = "2 of 3 ready"
    world.put(service)
    assert not world.woken(Expiry()), "its status is no news"
    assert set(Expiry().all_keys(world.snapshot)) == {"default/web"}
