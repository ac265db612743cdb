"""The replicated planner keeps a service whole, replaces gently, and asked twice says the same."""

from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import garbage, plan, replicated, tasks
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS


def reconcile(
    service: pb.Service,
    members: list[pb.Task],
    revisions: list[pb.Revision] | None = None,
    draining: frozenset[str] = frozenset(),
    now_ms: int = NOW_MS,
) -> plan.Plan:
    situation = replicated.Situation(
        service=service,
        revisions=[build.revision(service)] if revisions is None else revisions,
        tasks=members,
        draining=draining,
        now_ms=now_ms,
    )
    return replicated.reconcile(situation, build.suffixes())


T = TypeVar("T", bound=kinds.StoredObject)


def written(made: plan.Plan, message: type[T] = pb.Task) -> list[T]:  # type: ignore[assignment]  # tasks mostly
    return [change.value for change in made.changes if isinstance(change.value, message)]


def stopped(made: plan.Plan) -> list[str]:
    return [task.meta.id for task in written(made) if task.desired_state > pb.DESIRED_STATE_RUNNING]


@pytest.mark.parametrize(
    "change",
    [
        {"privileged": True},
        {"seccomp": "unconfined"},
        {"capabilities": pb.Capabilities(drop=["ALL"])},
        {"sysctls": {"net.core.somaxconn": "9"}},
        {"tmpfs": {"/tmp": pb.Tmpfs()}},
        {"userns": pb.USER_NAMESPACE_HOST},
        {"init": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_isolation_is_another_revision(change: dict[str, object]) -> None:
    """Tasks are replaced, since a container that runs cannot be changed."""
    service = build.service(replicas=1)
    before = build.revision(service)
    service.spec.template.container.MergeFrom(pb.Container(**change))  # type: ignore[arg-type]
    (made,) = written(reconcile(service, [build.task(1)], revisions=[before]), pb.Revision)
    assert made.number == before.number + 1
    assert made.written == service.spec.template


def test_a_new_service_gets_a_revision_and_a_task_in_every_slot() -> None:
    made = reconcile(build.service(replicas=3), [], revisions=[])
    assert [task.slot for task in written(made)] == [1, 2, 3]
    revision = next(change.value for change in made.changes if isinstance(change.value, pb.Revision))
    assert revision.number == 1
    assert {task.revision_id for task in written(made)} == {revision.meta.id}
    assert revision.template.restart.attempts > 0, "a revision has every default filled in"


def test_a_whole_service_that_says_so_needs_nothing() -> None:
    service = build.service(replicas=2)
    members = [build.task(1), build.task(2)]
    first = reconcile(service, members)
    status = written(first, pb.Service)[0].status
    service.status.CopyFrom(status)
    assert status.settled
    assert status.message == "2 of 2 ready"
    service.status.rollout.state = pb.ROLLOUT_STATE_COMPLETED
    service.status.rollout.stable_revision_id = service.status.revision_id
    service.status.rollout.message = "revision 1 is rolled out"
    (revision,) = written(first, pb.Revision)
    revision.outcome = pb.REVISION_OUTCOME_COMPLETED
    assert reconcile(service, members, [revision]) == plan.NOTHING


@pytest.mark.parametrize("state", [states.FAILED, states.REJECTED, states.ORPHANED, states.SHUTDOWN, states.COMPLETE])
def test_an_ended_task_is_replaced_in_its_slot(state: states.State) -> None:
    made = reconcile(build.service(replicas=2), [build.task(1), build.task(2, state)])
    assert [task.slot for task in written(made) if task.status.state == states.NEW] == [2]


def test_a_slot_is_not_filled_while_its_old_task_is_still_stopping() -> None:
    leaving = build.task(1, desired=pb.DESIRED_STATE_SHUTDOWN)
    assert written(reconcile(build.service(replicas=1), [leaving])) == []


def test_replicas_that_are_wanted_again_do_not_wait_for_those_that_go() -> None:
    going = build.task(1, desired=pb.DESIRED_STATE_REMOVE)
    assert [task.slot for task in written(reconcile(build.service(replicas=1), [going]))] == [1]


def test_scaling_down_removes_the_highest_slots() -> None:
    members = [build.task(slot) for slot in (1, 2, 3, 4)]
    made = reconcile(build.service(replicas=2), members)
    assert stopped(made) == [members[2].meta.id, members[3].meta.id]
    assert {task.desired_state for task in written(made)} == {pb.DESIRED_STATE_REMOVE}


def test_a_task_that_no_agent_has_seen_ends_at_once() -> None:
    made = reconcile(build.service(replicas=0), [build.task(1, states.PENDING)])
    assert [task.status.state for task in written(made)] == [states.SHUTDOWN]


def test_of_two_live_tasks_in_a_slot_the_better_one_stays() -> None:
    starting, running = build.task(1, states.STARTING), build.task(1)
    assert stopped(reconcile(build.service(replicas=1), [starting, running])) == [starting.meta.id]


def test_a_new_template_replaces_one_ready_task_at_a_time() -> None:
    service = build.service(replicas=3, image="new")
    old = build.revision(service, 1, image="old")
    members = [build.task(slot, revision_id=old.meta.id) for slot in (1, 2, 3)]
    made = reconcile(service, members, [old])
    assert stopped(made) == [], "the old one stays until the new one is ready"
    assert [task.slot for task in written(made)] == [1]


def test_a_port_of_the_node_is_free_before_the_next_task_takes_it() -> None:
    service = build.service(replicas=3, image="new")
    service.spec.template.container.ports.add(target=80, published=80, mode=pb.PUBLISH_MODE_HOST)
    old = build.revision(service, 1, image="old")
    members = [build.task(slot, revision_id=old.meta.id) for slot in (1, 2, 3)]
    made = reconcile(service, members, [old])
    assert stopped(made) == [members[0].meta.id]
    assert [task.slot for task in written(made) if task.status.state == states.NEW] == []


def fenced(**changes: object) -> pb.Service:
    service = build.service(**changes)  # type: ignore[arg-type]  # fields by name
    service.spec.on_node_loss.fence, service.spec.on_node_loss.replace_after = True, 10_000
    return service


def test_new_tasks_of_a_fenced_service_are_fenced() -> None:
    """By what the service says when they are made: an agent that is cut off hears of no change."""
    assert [task.fence for task in written(reconcile(fenced(replicas=2), []))] == [10_000, 10_000]
    assert [task.fence for task in written(reconcile(build.service(replicas=1), []))] == [0]


def test_beside_a_fenced_task_there_is_never_another() -> None:
    """Not in an update that says nothing of its order, and not when what was scaled away is wanted again."""
    service = fenced(replicas=1, image="new")
    old = build.revision(service, 1, image="old")
    made = reconcile(service, [build.task(1, revision_id=old.meta.id)], [old])
    assert [task.status.state for task in written(made)] == [states.RUNNING], "the old one stops, and no other is made"
    going = build.task(1, desired=pb.DESIRED_STATE_REMOVE)
    assert [task.slot for task in written(reconcile(fenced(replicas=1), [going]))] == [1], "it is not fenced"
    going.fence = 10_000
    assert written(reconcile(fenced(replicas=1), [going])) == []


def test_replacing_waits_while_something_that_should_be_ready_is_not() -> None:
    service = build.service(replicas=3, image="new")
    old, new = build.revision(service, 1, image="old"), build.revision(service, 2)
    fresh = build.task(1, states.STARTING, revision_id=new.meta.id)
    members = [fresh, build.task(2, revision_id=old.meta.id), build.task(3, revision_id=old.meta.id)]
    assert stopped(reconcile(service, members, [old, new])) == []


def test_old_tasks_that_do_no_work_are_replaced_without_waiting() -> None:
    service = build.service(replicas=2, image="new")
    old = build.revision(service, 1, image="broken")
    pending = build.task(1, states.PENDING, revision_id=old.meta.id)
    members = [pending, build.task(2, revision_id=old.meta.id)]
    assert stopped(reconcile(service, members, [old])) == [pending.meta.id]


def test_a_changed_default_replaces_nothing() -> None:
    service = build.service(replicas=1)
    revision = build.revision(service)
    revision.template.stop_grace_period = 1  # what an older version resolved to
    made = reconcile(service, [build.task(1)], [revision])
    assert [one.number for one in written(made, pb.Revision)] == [1], "what is written tells of its rollout only"


@pytest.mark.parametrize(
    ("failures", "wait_ms"), [(0, 0), (1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (40, 60_000)]
)
def test_the_more_often_a_slot_failed_the_longer_it_waits(failures: int, wait_ms: int) -> None:
    failed = build.task(1, states.FAILED)
    failed.failures = failures
    service = build.service(replicas=1)
    if wait_ms:
        early = reconcile(service, [failed], now_ms=NOW_MS + wait_ms - 1)
        assert written(early) == []
        assert early.wake_at == NOW_MS + wait_ms
    made = written(reconcile(service, [failed], now_ms=NOW_MS + wait_ms))
    assert [task.failures for task in made] == [failures + 1]


def test_a_clock_that_went_back_does_not_make_a_new_task_older_than_the_one_it_replaces() -> None:
    before = build.task(1, states.FAILED)
    made = written(reconcile(build.service(replicas=1), [before], now_ms=NOW_MS - 10_000))
    assert len(made) == 1
    assert tasks.newest([before, *made]) == made[0]


def test_a_failure_is_not_older_than_its_task_whatever_the_clock_of_its_node_says() -> None:
    failed = build.task(1, states.FAILED, at=NOW_MS - 10_000)
    failed.failures = 2
    made = reconcile(build.service(replicas=1), [failed])
    assert [task for task in written(made) if task.status.state == states.NEW] == []
    assert made.wake_at == NOW_MS + 2_000


def test_a_failure_after_a_healthy_minute_begins_a_new_row() -> None:
    failed = build.task(1, states.FAILED, started_at=NOW_MS - 90_000, finished_at=NOW_MS)
    failed.failures = 5
    made = written(reconcile(build.service(replicas=1), [failed]))
    assert [task.failures for task in made] == [1]


@pytest.mark.parametrize(
    ("condition", "state", "replaced"),
    [
        (pb.RESTART_CONDITION_NEVER, states.COMPLETE, False),
        (pb.RESTART_CONDITION_NEVER, states.FAILED, False),
        (pb.RESTART_CONDITION_NEVER, states.ORPHANED, True),
        (pb.RESTART_CONDITION_NEVER, states.REJECTED, True),
        (pb.RESTART_CONDITION_ON_FAILURE, states.COMPLETE, False),
        (pb.RESTART_CONDITION_ON_FAILURE, states.FAILED, True),
        (pb.RESTART_CONDITION_ANY, states.COMPLETE, True),
    ],
)
def test_the_restart_condition_decides_whether_an_ended_slot_is_done(
    condition: pb.RestartCondition.ValueType, state: states.State, replaced: bool
) -> None:
    service = build.service(replicas=1)
    service.spec.template.restart.condition = condition
    made = written(reconcile(service, [build.task(1, state)]))
    assert bool([task for task in made if task.status.state == states.NEW]) == replaced


def test_a_deleted_service_goes_after_its_tasks() -> None:
    service = build.service(replicas=1)
    service.meta.deleted_at = NOW_MS
    assert [task.desired_state for task in written(reconcile(service, [build.task(1)]))] == [pb.DESIRED_STATE_REMOVE]
    removed = reconcile(service, [])
    assert [type(change.value) for change in removed.changes] == [pb.Revision, pb.Service]
    assert all(isinstance(change, plan.Remove) for change in removed.changes)


def test_the_status_tells_what_holds_the_service_up() -> None:
    service = build.service(replicas=3)
    stuck = [build.task(slot, states.PENDING, message="no node takes it", reason="Unschedulable") for slot in (2, 3)]
    status = written(reconcile(service, [build.task(1), *stuck]), pb.Service)[0].status
    assert status.message == "1 of 3 ready; no node takes it (2 slots)"
    assert not status.settled


def test_a_service_is_not_settled_before_its_surplus_has_left() -> None:
    status = written(reconcile(build.service(replicas=1), [build.task(1), build.task(2)]), pb.Service)[0].status
    assert status.message == "1 of 1 ready; 1 stopping"
    assert not status.settled


class _World:
    """One service, its tasks, and a rude agent."""

    def __init__(self) -> None:
        self._shelf = build.Shelf([build.service(replicas=3)])
        self._names = build.suffixes()
        self._now_ms = NOW_MS

    @property
    def service(self) -> pb.Service:
        return self._shelf.all(pb.Service)[0]

    @property
    def tasks(self) -> list[pb.Task]:
        return self._shelf.all(pb.Task)

    def turn(self) -> plan.Plan:
        """One look of the planner."""
        situation = replicated.Situation(
            service=self.service,
            revisions=self._shelf.all(pb.Revision),
            tasks=self.tasks,
            draining=frozenset(),
            now_ms=self._now_ms,
        )
        return self._shelf.apply(replicated.reconcile(situation, self._names))

    def collect(self) -> None:
        self._shelf.apply(garbage.collect(self.tasks, self._shelf.all(pb.Revision), self.service))

    def happen(self, what: str, number: int) -> None:
        """Something that nobody planned."""
        self._now_ms += 500
        if what in {"scale", "template"}:
            self._edit(what, number)
        elif what == "collect":
            self.collect()
        else:
            alive = [task for task in self.tasks if not states.is_terminal(task.status.state)]
            ends = {"fail": states.FAILED, "lose": states.ORPHANED, "stop": states.SHUTDOWN}
            for task in alive[number : number + 1]:
                self._move(task, ends.get(what) or _next(task))

    def settle(self) -> None:
        """Every task goes its way until nothing moves any more."""
        for _ in range(200):
            made = self.turn()
            restless = [task for task in self.tasks if not states.is_terminal(task.status.state)]
            restless = [task for task in restless if not tasks.is_ready(task)]
            for task in restless:
                self._move(task, _next(task))
            self.collect()
            if self.service.status.rollout.state == pb.ROLLOUT_STATE_PAUSED:
                self._edit("resume", 0)
            elif not made.changes and not restless and made.wake_at is None:
                return
            self._now_ms = max(self._now_ms + 1, 0 if restless or made.changes else made.wake_at or 0)
        pytest.fail("the service does not come to rest")

    def _edit(self, what: str, number: int) -> None:
        changed = plan.copy(self.service)
        changed.meta.generation += 1
        if what == "scale":
            changed.spec.replicas = number % 6
        elif what == "resume":
            changed.spec.rollout.resumed_at = self._now_ms
        else:
            changed.spec.template.container.image = f"hello:{number % 3}"
        self._shelf.put(changed)

    def _move(self, task: pb.Task, state: states.State) -> None:
        changed = plan.copy(task)
        changed.node_id = "n1"
        changed.status.CopyFrom(pb.TaskStatus(state=state, at=self._now_ms, ready=state == states.RUNNING))
        self._shelf.put(changed)


def _next(task: pb.Task) -> states.State:
    return states.RUNNING if tasks.is_live(task) else states.SHUTDOWN


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["advance", "fail", "lose", "scale", "template", "stop", "collect"]),
        st.integers(min_value=0, max_value=8),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_a_service_becomes_whole_again_and_then_rests(steps: list[tuple[str, int]]) -> None:
    world = _World()
    for what, number in steps:
        world.turn()
        world.happen(what, number)
    world.settle()
    ready = sorted((task for task in world.tasks if tasks.is_ready(task)), key=lambda task: task.slot)
    assert [task.slot for task in ready] == list(range(1, world.service.spec.replicas + 1))
    assert {task.revision_id for task in ready} <= {world.service.status.revision_id}
    assert world.service.status.settled
    assert world.turn() == plan.NOTHING, "a service at rest is left alone"
