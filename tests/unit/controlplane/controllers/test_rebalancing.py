"""The leader looks at the spread again when nodes come, a service has come to rest, or a failure is forgotten."""

import pytest

from controlplane.controllers.rebalancing import CLUSTER, Rebalancing
from controlplane.controllers.scheduling import Outlook
from controlplane.controllers.services import Services
from controlplane.core import failures, plan, rebalance, tasks
from controlplane.store import typed
from controlplane.store.snapshots import Change, Editor
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

LONG_AGO = NOW_MS - 3_600_000


class World:
    """A store, and the two planners: that of services, and that of their spread."""

    def __init__(self, *values: kinds.StoredObject) -> None:
        self._editor = Editor()
        self._services = Services(build.suffixes(), "10.201.0.0/24", "")
        self.rebalancing = Rebalancing(build.suffixes(), Outlook(), 6)
        self.now_ms = NOW_MS
        self.wakes = False
        """Whether anything has woken the latter since it was last asked."""
        for value in values:
            self.put(value)

    def put(self, value: kinds.StoredObject) -> None:
        key = kinds.key(value)
        stored = typed.decode(key, typed.encode(value), self._editor.version(key) + 1)
        change = self._editor.replace(kinds.of(value), key, stored)
        assert isinstance(change, Change)
        self.wakes |= set(self.rebalancing.keys_of(change, self._editor.snapshot())) == {CLUSTER}

    def tasks(self) -> list[pb.Task]:
        return list(self._editor.snapshot().all(pb.Task).values())

    def service(self) -> pb.Service:
        found = self._editor.snapshot().get(pb.Service, "web", namespace="default")
        assert found is not None
        return plan.copy(found)

    def come_to_rest(self) -> None:
        """What the service needs is carried out, and a minute passes each time. What is to stop has stopped then."""
        for _ in range(3):
            made = self._services.decide(self._editor.snapshot(), frozenset({"default/web"}), self.now_ms)
            for change in made.changes:
                assert isinstance(change, plan.Write)
                self.put(change.value)
            for task in self.tasks():
                if task.desired_state > pb.DESIRED_STATE_RUNNING and not states.is_terminal(task.status.state):
                    ended = plan.copy(task)
                    ended.status.state, ended.status.ready = states.SHUTDOWN, False
                    self.put(ended)
            self.now_ms += 60_000
        assert self.service().status.settled

    def moves(self) -> tuple[list[str], int | None]:
        """What would be moved, and when it looks again by itself."""
        self.wakes = False
        made = self.rebalancing.decide(self._editor.snapshot(), frozenset({CLUSTER}), self.now_ms)
        return [change.why for change in made.changes], made.wake_at


def spread(**homes: int) -> World:
    """A service that has come to rest on nodes that are there for long: so many slots on the first, then the second."""
    service = build.service(replicas=sum(homes.values()))
    revision_id = build.revision(service).meta.id
    slots = enumerate((home for home, count in homes.items() for _ in range(count)), start=1)
    members = [build.task(slot, node=home, revision_id=revision_id, created_at=LONG_AGO) for slot, home in slots]
    world = World(service, build.revision(service), *members, *(build.node(name, since=LONG_AGO) for name in homes))
    world.come_to_rest()
    return world


def test_what_a_scale_down_leaves_is_spread_again() -> None:
    """The highest slots go, wherever they are: n3 has none left."""
    world = spread(n1=3, n2=3, n3=3)
    assert world.moves() == ([], None)
    service = world.service()
    service.spec.replicas = 5
    service.meta.generation += 1
    world.put(service)
    assert world.moves() == ([], None), "it is under way"
    world.come_to_rest()
    assert sorted(task.slot for task in world.tasks() if tasks.is_live(task)) == [1, 2, 3, 4, 5]
    assert world.wakes
    assert world.moves() == (["moves from n1, which has 3 tasks of web, to n3, which has 0"], None)


def test_a_node_that_comes_back_wakes_it() -> None:
    """First to see that the node is fresh, and once more when it is not."""
    world = spread(n1=3, n2=3)
    assert world.moves() == ([], None)
    came = world.now_ms
    world.put(build.node("n3", since=came))
    assert world.wakes
    assert world.moves() == ([], came + rebalance.FRESH_MS)
    world.now_ms = came + rebalance.FRESH_MS
    assert world.moves() == (["moves from n2, which has 3 tasks of web, to n3, which has 0"], None)


def test_a_failure_that_is_forgotten_wakes_it() -> None:
    world = spread(n1=4, n2=2, n3=2)
    failed = build.task(99, states.FAILED, node="n2", created_at=world.now_ms)
    failed.revision_id = world.service().status.revision_id
    world.put(failed)
    failed.meta.id, failed.node_id, failed.meta.name = "another", "n3", "another"
    world.put(failed)
    forgotten_at = world.now_ms + failures.LATELY_MS
    assert world.moves() == ([], forgotten_at)
    world.now_ms = forgotten_at
    assert world.moves() == (["moves from n1, which has 4 tasks of web, to n2, which has 2"], None)


@pytest.mark.parametrize("is_settled", [True, False])
def test_a_service_that_is_under_way_wakes_it_only_at_rest(is_settled: bool) -> None:
    world = spread(n1=2, n2=2)
    world.moves()
    service = world.service()
    service.status.settled = is_settled
    world.put(service)
    assert world.wakes is is_settled
