"""Services wait for what they depend on, start with it, outlive whoever uses them, and end when their time is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import dependencies, expiry, plan, relations, replicated
from controlplane.core import request_errors as errors
from controlplane.core.dependencies import Other
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

READY = pb.DEPENDENCY_CONDITION_READY
STARTED = pb.DEPENDENCY_CONDITION_STARTED
COMPLETED = pb.DEPENDENCY_CONDITION_COMPLETED


def using(name: str = "web", **wanted: "pb.DependencyCondition.ValueType") -> pb.Service:
    """A service that depends on others."""
    service = build.service(name)
    service.spec.depends_on.update(wanted)
    return service


def database(*, replicas: int = 2, running: int = 0, ready: int = 0, observed: int = 1) -> pb.Service:
    service = build.service("db", replicas=replicas)
    service.status.CopyFrom(
        pb.ServiceStatus(replicas=replicas, running=running, ready=ready, observed_generation=observed)
    )
    return service


def ended(slot: int, state: states.State = states.COMPLETE, *, ago: int = 0) -> pb.Task:
    return build.task(slot, state, of="db", created_at=NOW_MS - ago)


WAITS = [
    ("nothing is depended on", {}, database(), (), ""),
    ("it is not there", {"db": READY}, None, (), "db to be ready, which does not exist"),
    ("it is not ready", {"db": READY}, database(running=2, ready=1), (), "db to be ready"),
    ("it is ready", {"db": READY}, database(running=2, ready=2), (), ""),
    ("its status is older than its spec", {"db": READY}, database(ready=2, observed=0), (), "db to be ready"),
    ("it has no replicas", {"db": READY}, database(replicas=0), (), "db to be ready"),
    ("it does not run", {"db": STARTED}, database(running=1), (), "db to run"),
    ("it runs", {"db": STARTED}, database(running=2), (), ""),
    ("some of it has ended", {"db": COMPLETED}, database(), (ended(1),), "db to end well"),
    ("all of it has", {"db": COMPLETED}, database(), (ended(1), ended(2)), ""),
    ("one has ended badly", {"db": COMPLETED}, database(), (ended(1), ended(2, states.FAILED)), "db to end well"),
    (
        "one that had ended badly has ended well since",
        {"db": COMPLETED},
        database(),
        (ended(1, states.FAILED, ago=9), ended(1), ended(2)),
        "",
    ),
    (
        "one that had ended well runs again",
        {"db": COMPLETED},
        database(),
        (ended(1, ago=9), ended(1, states.RUNNING), ended(2)),
        "db to end well",
    ),
]


@pytest.mark.parametrize(
    ("wanted", "other", "tasks", "words"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS]
)
def test_what_a_service_waits_for(
    wanted: dict[str, "pb.DependencyCondition.ValueType"],
    other: pb.Service | None,
    tasks: tuple[pb.Task, ...],
    words: str,
) -> None:
    """In words, which are empty when nothing holds it."""
    assert dependencies.waits_for(using(**wanted), {"db": Other(service=other, tasks=tasks)}) == words


def test_every_wish_is_told() -> None:
    """And one that is being deleted is as good as none."""
    going = database(running=2, ready=2)
    going.meta.deleted_at = NOW_MS
    found = dependencies.waits_for(
        using(cache=STARTED, db=READY), {"db": Other(service=going), "cache": Other(service=None)}
    )
    assert found == "cache to run, which does not exist and db to be ready, which is being deleted"


def held(waits: str = "db to be ready", state: states.State = states.READY) -> pb.Task:
    task = build.task(1, state, desired=pb.DESIRED_STATE_READY)
    task.waits_for = waits
    return task


def test_tasks_of_a_service_that_waits_are_made_to_be_held() -> None:
    """They say for what; and without a reason they are to run."""
    service = using(db=READY)
    for waits, desired in (("db to be ready", pb.DESIRED_STATE_READY), ("", pb.DESIRED_STATE_RUNNING)):
        situation = replicated.Situation(
            service=service,
            revisions=[build.revision(service)],
            tasks=[],
            draining=frozenset(),
            now_ms=NOW_MS,
            waits_for=waits,
        )
        made = replicated.reconcile(situation, build.suffixes())
        found = [change.value for change in made.changes if isinstance(change.value, pb.Task)]
        assert {(task.desired_state, task.waits_for) for task in found} == {(desired, waits)}


def test_tasks_are_let_go_once() -> None:
    """Those that were held start, others are left as they are, and what was let go is never held again."""
    (write,) = dependencies.let_go([held(), build.task(2), held(state=states.SHUTDOWN)], "")
    assert isinstance(write.value, pb.Task)
    assert (write.value.desired_state, write.value.waits_for) == (pb.DESIRED_STATE_RUNNING, "")
    assert not list(dependencies.let_go([write.value], "db to be ready"))


def test_a_held_task_says_what_it_waits_for_now() -> None:
    """When that is not what it says already."""
    (write,) = dependencies.let_go([held()], "cache to run")
    assert isinstance(write.value, pb.Task)
    assert (write.value.desired_state, write.value.waits_for) == (pb.DESIRED_STATE_READY, "cache to run")
    assert not list(dependencies.let_go([held()], "db to be ready"))


@given(st.lists(st.tuples(st.sampled_from(list(pb.DesiredState.values())), st.booleans())), st.sampled_from(["", "x"]))
def test_letting_go_only_raises(members: "list[tuple[pb.DesiredState.ValueType, bool]]", waits: str) -> None:
    """Whatever is there: desired states rise, and asked twice there is nothing left to do."""
    tasks = [
        build.task(slot, states.COMPLETE if over else states.READY, desired=desired, ident=f"t{slot}")
        for slot, (desired, over) in enumerate(members)
    ]
    shelf = build.Shelf(tasks)
    before = {task.meta.id: task.desired_state for task in shelf.all(pb.Task)}
    shelf.apply(plan.Plan(changes=tuple(dependencies.let_go(shelf.all(pb.Task), waits))))
    assert all(task.desired_state >= before[task.meta.id] for task in shelf.all(pb.Task))
    assert not list(dependencies.let_go(shelf.all(pb.Task), waits))


def nothing(_: pb.Service) -> list[pb.Task]:
    """The tasks of a service that has none."""
    return []


def test_a_service_outlives_those_that_need_it_when_all_go() -> None:
    """Only those that go, too: nobody is held up by a service that stays."""
    going, staying, other = using("web", db=READY), using("api", db=READY), using("job")
    needed = database()
    needed.meta.deleted_at = going.meta.deleted_at = other.meta.deleted_at = NOW_MS
    assert dependencies.needed_by(needed, [going, staying, other], nothing) == ("web",)
    going.meta.namespace = "elsewhere"
    assert dependencies.needed_by(needed, [going, staying, other], nothing) == ()


def test_the_stopped_wait_for_the_stopped() -> None:
    """Until the last task of those has ended; and not for one that runs on."""
    needed, user = database(), using("web", db=READY)
    needed.spec.stopped = True
    members = [build.task(1), build.task(2)]
    assert dependencies.needed_by(needed, [user], lambda _: members) == ()
    user.spec.stopped = True
    assert dependencies.needed_by(needed, [user], lambda _: members) == ("web",)
    members[0].status.state = states.SHUTDOWN
    assert dependencies.needed_by(needed, [user], lambda _: members) == ("web",)
    members[1].status.state = states.ORPHANED
    assert dependencies.needed_by(needed, [user], lambda _: members) == ()
    assert dependencies.needed_by(database(), [user], lambda _: [build.task(1)]) == (), "it stays as it is"


def test_a_stopped_service_that_is_needed_is_not_settled() -> None:
    """What waits for its end goes on waiting."""
    service = build.service("db", replicas=1)
    service.spec.stopped = True
    for trouble in ("it stops after web, which depends on it", ""):
        made = reconciled(service, needed=bool(trouble), trouble=trouble)
        (told,) = [one for one in made if isinstance(one, pb.Service)]
        assert not told.status.settled
        assert told.status.message.startswith("stopped")
        assert trouble in told.status.message


def reconciled(service: pb.Service, *, needed: bool, trouble: str = "") -> list[object]:
    """What becomes of a service with one task, and of that."""
    situation = replicated.Situation(
        service=service,
        revisions=[build.revision(service)],
        tasks=[build.task(1, of="db", revision_id="db-1-id-db")],
        draining=frozenset(),
        now_ms=NOW_MS,
        needed=needed,
        trouble=trouble,
    )
    return [change.value for change in replicated.reconcile(situation, build.suffixes()).changes]


def test_services_that_need_each_other_go_at_once() -> None:
    """Nobody can apply that, but two people together may have."""
    one, other = using("a", b=READY), using("b", a=READY)
    one.meta.deleted_at = other.meta.deleted_at = NOW_MS
    assert dependencies.needed_by(one, [one, other], nothing) == ()
    assert dependencies.needed_by(other, [one, other], nothing) == ()


@pytest.mark.parametrize("way", ["deleted", "stopped"])
def test_what_is_still_needed_is_kept_whole(way: str) -> None:
    """It is reconciled as ever until the last that needs it has gone; then its tasks are asked to go."""
    service = build.service("db", replicas=1)
    service.meta.deleted_at, service.spec.stopped = NOW_MS * (way == "deleted"), way == "stopped"
    for needed in (True, False):
        tasks = [one for one in reconciled(service, needed=needed) if isinstance(one, pb.Task)]
        assert any(task.desired_state == pb.DESIRED_STATE_REMOVE for task in tasks) != needed


def test_a_cycle_is_refused_with_its_way() -> None:
    """Also when half of it is there already; and a service that waits for itself."""
    there, wanted = using("a", b=READY), using("b", a=STARTED)
    around = relations.Surroundings.after([there], [wanted])
    (refusal,) = relations.refusals([wanted], around)
    assert refusal.error is errors.Invalid
    assert str(refusal.mistake) == "Service default/b: spec.dependsOn.a: b → a → b wait for each other"
    alone = using("a", a=READY)
    (refusal,) = relations.refusals([alone], relations.Surroundings.after([], [alone]))
    assert refusal.mistake.message == "a waits for itself"


@pytest.mark.parametrize(
    ("condition", "refused"),
    [
        (pb.RESTART_CONDITION_UNSPECIFIED, True),
        (pb.RESTART_CONDITION_ANY, True),
        (pb.RESTART_CONDITION_ON_FAILURE, False),
        (pb.RESTART_CONDITION_NEVER, False),
    ],
)
def test_nobody_waits_for_the_end_of_what_never_ends(condition: "pb.RestartCondition.ValueType", refused: bool) -> None:
    """It is refused with the remedy, wherever the other one is: here, or in the same files."""
    other, wanted = build.service("db"), using(db=COMPLETED)
    other.spec.template.restart.condition = condition
    found = list(relations.refusals([wanted], relations.Surroundings.after([other], [wanted])))
    assert [one.mistake.message for one in found] == (
        ["db is started again whenever it ends, so it is never completed"] if refused else []
    )


def test_a_service_ends_when_its_time_is_over() -> None:
    """Not before, and once only."""
    service = build.service()
    service.meta.created_at, service.spec.ttl = NOW_MS, 60_000
    assert expiry.expire(service, NOW_MS + 59_999) == plan.Plan(wake_at=NOW_MS + 60_000)
    (change,) = expiry.expire(service, NOW_MS + 60_000).changes
    assert change.value.meta.deleted_at == NOW_MS + 60_000
    assert isinstance(change.value, pb.Service)
    assert expiry.expire(change.value, NOW_MS + 70_000) == plan.NOTHING
    assert expiry.expire(build.service(), NOW_MS) == plan.NOTHING
