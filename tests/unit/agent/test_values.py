"""The small decisions: assignments, configuration, retries, reports."""

import asyncio
import dataclasses
import json

import pytest

from agent.adapters.runtime import signal_number
from agent.core import assignments, container, retry
from agent.core.assignments import Assignments, Gap
from agent.core.observed import Desired, Observed
from agent.core.record import Exit, Record, from_json, to_json
from agent.core.status import status_of
from agent.errors import Refused
from agent.node import memory_total
from agent.outbox import PATIENCE_S, Outbox
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import bounded
from tests.support.fake_agent import NODE
from tests.support.fake_leader import task, template

COMPLETE, INCREMENTAL = dpb.Assignment.TYPE_COMPLETE, dpb.Assignment.TYPE_INCREMENTAL
RUN = Desired(state=pb.DESIRED_STATE_RUNNING, template=pb.TaskTemplate())
REVISION = pb.Revision(meta=pb.Meta(id="r1"))


def after(*messages: dpb.Assignment) -> Assignments | Gap:
    """What is assigned after these messages."""
    current: Assignments | Gap = Assignments()
    for message in messages:
        assert isinstance(current, Assignments), current
        current = assignments.apply(current, message)
    return current


def complete(*tasks: pb.Task, number: int = 1) -> dpb.Assignment:
    return dpb.Assignment(type=COMPLETE, results_in=number, tasks=tasks, revisions=[REVISION])


def increment(number: int, **fields: object) -> dpb.Assignment:
    return dpb.Assignment(type=INCREMENTAL, applies_to=number - 1, results_in=number, **fields)  # type: ignore[arg-type]


def test_increments_add_change_and_remove() -> None:
    """COMPLETE is everything; INCREMENTAL is what changed since."""
    found = after(
        complete(task("a"), task("b")),
        increment(2, tasks=[task("c"), task("a", desired=pb.DESIRED_STATE_SHUTDOWN)], removed_tasks=["b"]),
    )
    assert isinstance(found, Assignments)
    assert {name: each.desired_state for name, each in found.tasks.items()} == {
        "a": pb.DESIRED_STATE_SHUTDOWN,
        "c": pb.DESIRED_STATE_RUNNING,
    }
    assert found.sequence == 2


def test_a_complete_message_forgets_what_it_does_not_name() -> None:
    """Whatever was assigned before."""
    found = after(complete(task("a"), task("b")), complete(task("b"), number=5))
    assert isinstance(found, Assignments)
    assert set(found.tasks) == {"b"}


def test_withdrawn_tasks_add_up() -> None:
    """An increment tells of more, a COMPLETE message of all; those of tasks that are gone are forgotten."""
    messages = [
        complete(task("a"), task("b")),
        increment(2, withdrawn_tasks=["a"]),
        increment(3, withdrawn_tasks=["b"]),
        increment(4, removed_tasks=["a"]),
        complete(task("b"), number=5),
    ]
    seen = []
    for number in range(1, 6):
        found = after(*messages[:number])
        assert isinstance(found, Assignments)
        assert assignments.from_saved(assignments.to_saved(found)).withdrawn == found.withdrawn
        seen.append(sorted(found.withdrawn))
    assert seen == [[], ["a"], ["a", "b"], ["b"], []]


def test_the_network_stays_until_another_is_sent() -> None:
    """Messages without one leave it."""
    network = dpb.NodeNetwork(subnet="10.0.0.0/24")
    found = after(complete(), increment(2, network=network), increment(3))
    assert isinstance(found, Assignments)
    assert found.network == network


def test_services_come_and_go() -> None:
    """An increment names what changed; a complete message forgets the rest."""
    web, db = dpb.NetworkService(id="1", name="web"), dpb.NetworkService(id="2", name="db")
    moved = dpb.NetworkService(id="1", name="web", address="10.1.0.1")
    found = after(complete(), increment(2, services=[web, db]), increment(3, services=[moved], removed_services=["2"]))
    assert isinstance(found, Assignments)
    assert found.services == {"1": moved}
    again = assignments.apply(found, complete(number=4))
    assert isinstance(again, Assignments)
    assert again.services == {}


def test_services_that_did_not_change_are_the_same_value() -> None:
    """Whoever holds them sees that without comparing each."""
    found = after(complete(), increment(2, services=[dpb.NetworkService(id="1")]))
    assert isinstance(found, Assignments)
    later = assignments.apply(found, increment(3, tasks=[]))
    assert isinstance(later, Assignments)
    assert later.services is found.services


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (increment(3), "builds on 2, this agent is at 1"),
        (increment(2, tasks=[task("x", revision="r9")]), "revision r9 of task x is missing"),
        (dpb.Assignment(results_in=9), "does not know"),
    ],
)
def test_what_does_not_fit_is_a_gap(message: dpb.Assignment, words: str) -> None:
    """The agent then asks for everything."""
    found = after(complete(), message)
    assert isinstance(found, Gap)
    assert words in found.why


def test_an_increment_before_the_first_complete_message_is_a_gap() -> None:
    """Numbers begin anew with each session."""
    current = after(complete(task("a"), number=4))
    assert isinstance(current, Assignments)
    assert isinstance(assignments.apply(assignments.of_new_session(current), increment(5)), Gap)


def test_doubled_and_late_messages_change_nothing() -> None:
    """Nor does a desired state ever fall."""
    current = after(complete(task("a")), increment(2, tasks=[task("a", desired=pb.DESIRED_STATE_REMOVE)]))
    assert isinstance(current, Assignments)
    assert assignments.apply(current, increment(2, tasks=[task("a")])) is current
    again = assignments.apply(assignments.of_new_session(current), complete(task("a")))
    assert isinstance(again, Assignments)
    assert again.tasks["a"].desired_state == pb.DESIRED_STATE_REMOVE


def test_what_is_saved_comes_back() -> None:
    """All but the number, which belongs to the session."""
    network = dpb.NodeNetwork(subnet="10.0.0.0/24")
    current = after(complete(task("a")), increment(2, network=network, services=[dpb.NetworkService(id="1")]))
    assert isinstance(current, Assignments)
    assert assignments.from_saved(assignments.to_saved(current)) == assignments.of_new_session(current)


IMAGE = container.PreparedImage(
    digest="sha256:0", layers=("/l",), entrypoint=("/entry",), cmd=("run",), env=("PATH=/bin", "A=image"), user="app"
)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["/entry", "run"]),
        ([], ["walk"], ["/entry", "walk"]),
        (["/other"], [], ["/other"]),
        (["/other"], ["walk"], ["/other", "walk"]),
    ],
)
def test_commands_follow_the_rules_of_docker(command: list[str], args: list[str], expected: list[str]) -> None:
    """`command` replaces entry point and arguments, `args` the arguments."""
    assert container.arguments(pb.Container(command=command, args=args), IMAGE) == expected


def test_an_image_without_a_command_is_refused() -> None:
    """The remedy is named."""
    empty = container.PreparedImage(digest="sha256:0", layers=("/l",))
    with pytest.raises(Refused, match=r"container\.command"):
        container.arguments(pb.Container(image="x"), empty)


def test_configuration() -> None:
    """What comes from the template, the image and the node, and that the default is not changed by it."""
    made = template("/web")
    made.container.env["A"] = "template"
    made.container.resources.limits.cpu, made.container.resources.limits.memory = 500, 1 << 26
    made.container.resources.reservations.cpu = 250
    made.container.ulimits["nofile"].soft = made.container.ulimits["nofile"].hard = 64
    made.container.read_only_rootfs = True
    request = container.request(
        task=task("web-1-a"), template=made, image=IMAGE, node=NODE, address="10.1.2.3", network_namespace="/ns"
    )
    process, linux = request.config["process"], request.config["linux"]
    assert process["user"] == {"username": "app"}
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    assert {"A=template", "PATH=/bin", "ORCH_TASK=web-1-a", "ORCH_NODE=n1", "HOSTNAME=web-1-a"} <= set(process["env"])
    assert linux["resources"] == {
        "pids": {"limit": 4096},
        "memory": {"limit": 1 << 26, "swap": 1 << 26},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 256},
        "devices": [],
    }
    assert linux["cgroupsPath"] == "/orch/test/web-1-a"
    assert linux["namespaces"] == [{"type": "pid"}, {"type": "network", "path": "/ns"}]
    assert request.config["root"]["readonly"] is True
    assert NODE.base == {"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]}}


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("USR1", 10)]
)
def test_signals(text: str, number: int) -> None:
    """By name or number, as images and manifests write them."""
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "SIGNOTHING", "0", "99", "RTMIN+x"])
def test_signals_that_do_not_exist(text: str) -> None:
    """Refused with an example."""
    with pytest.raises(Refused, match="SIGTERM or 15"):
        signal_number(text)


def test_failures_wait_longer_and_longer() -> None:
    """Up to ten seconds, and a final one stays final."""
    failure, waits = None, []
    for _ in range(9):
        failure = retry.temporary(failure, reason="R", message="m", now_ms=1000, jitter=0)
        waits.append(failure.retry_at - 1000)
    assert waits == [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
    final = retry.temporary(retry.final(reason="Bad", message="no"), reason="R", message="m", now_ms=0, jitter=0)
    assert (final.reason, final.final, final.attempts) == ("Bad", True, 2)


def test_records_survive_the_disk() -> None:
    """Every field."""
    record = Record(
        state=states.RUNNING,
        address="10.0.0.2",
        exit=Exit(code=137, finished_at=5, oom_killed=True, memory_limit=1 << 26),
        restart_times=(1, 2),
        ending=states.FAILED,
        ready=False,
        unhealthy="liveness probe failed",
        leaving_since=7,
        draining_since=8,
    )
    assert from_json(to_json(record)) == record
    assert from_json(to_json(Record())) == Record()


def test_records_of_an_earlier_version_are_read() -> None:
    """It knew no probes: what ran was ready."""
    old = {"state": int(states.RUNNING), "exit": None, "restart_times": [], "address": "10.0.0.2"}
    assert from_json(json.dumps(old)) == Record(state=states.RUNNING, address="10.0.0.2", ready=True)


def test_out_of_memory_is_told_with_the_limit() -> None:
    """Whoever has to raise the limit sees what it is; without one it was the machine that had no more."""
    ended = Exit(code=137, finished_at=5, oom_killed=True, memory_limit=64 << 20)
    status = status_of(Observed(record=Record(state=states.RUNNING, exit=ended)), RUN)
    assert status.message == "killed: out of memory, its limit is 64Mi; restart 1 is next"
    record = Record(state=states.RUNNING, exit=dataclasses.replace(ended, memory_limit=0))
    assert status_of(Observed(record=record), RUN).message.startswith("killed: the machine was out of memory")


def test_a_container_that_never_started_says_why_between_attempts() -> None:
    """And not the exit code alone, which it never had."""
    record = Record(state=states.STARTING, exit=Exit(code=127, finished_at=5, message="program '/x' does not exist"))
    status = status_of(Observed(record=record), RUN)
    assert status.message == "could not be started: program '/x' does not exist; restart 1 is next"
    assert status.reason == "Restarting"
    assert status_of(Observed(record=Record(state=states.STARTING)), RUN).message == ""


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": 1, "unknown": 2, "exit": null, "restart_times": []}'])
def test_damaged_records_are_refused(text: str) -> None:
    """With one kind of error, so that the agent can go on without it."""
    with pytest.raises(ValueError):
        from_json(text)


def test_memory() -> None:
    """As proc_meminfo(5) has it."""
    assert memory_total("MemFree: 1 kB\nMemTotal:       16384 kB\n") == 16_777_216


def report(name: str, state: int) -> dpb.TaskReport:
    return dpb.TaskReport(task_id=name, status=pb.TaskStatus(state=state))  # type: ignore[arg-type]


@bounded(3600, virtual_time=True)
async def test_only_the_newest_status_of_a_task_is_sent() -> None:
    """What happened between two batches is one report a task."""
    outbox = Outbox()
    outbox.begin([])
    for state in (states.ACCEPTED, states.PREPARING):
        outbox.put(report("a", state))
    outbox.put(report("b", states.ACCEPTED))
    batch = await outbox.next_batch()
    assert [(each.task_id, each.status.state) for each in batch.tasks] == [
        ("a", states.PREPARING),
        ("b", states.ACCEPTED),
    ]
    outbox.acknowledge(batch.sequence)
    assert outbox.idle


@bounded(3600, virtual_time=True)
async def test_steps_on_the_way_up_wait_for_what_matters() -> None:
    """Most starts are one report; a slow one is told of while it lasts, and trouble at once."""
    loop, outbox = asyncio.get_running_loop(), Outbox()
    outbox.begin([])
    began = loop.time()
    outbox.put(report("a", states.ACCEPTED))
    loop.call_later(0.03, lambda: outbox.put(report("a", states.RUNNING)))
    batch = await outbox.next_batch()
    assert [each.status.state for each in batch.tasks] == [states.RUNNING]
    assert loop.time() - began == pytest.approx(0.03)
    outbox.acknowledge(batch.sequence)

    began = loop.time()
    outbox.put(report("b", states.PREPARING))
    outbox.acknowledge((await outbox.next_batch()).sequence)
    assert loop.time() - began == pytest.approx(PATIENCE_S)

    began = loop.time()
    held_up = report("c", states.PREPARING)
    held_up.status.reason = "ImageNotFound"
    outbox.put(held_up)
    outbox.acknowledge((await outbox.next_batch()).sequence)
    outbox.begin([report("b", states.PREPARING)])  # a new leader knows nothing
    await outbox.next_batch()
    assert loop.time() == began


@bounded(3600, virtual_time=True)
async def test_what_is_not_acknowledged_is_repeated() -> None:
    """In the same session after a while, with newer news if there are any; in the next one at once."""
    outbox = Outbox()
    outbox.begin([])
    outbox.put(report("a", states.ACCEPTED))
    first = await outbox.next_batch()
    outbox.put(report("b", states.ACCEPTED))
    again = await outbox.next_batch()
    assert {each.task_id for each in again.tasks} == {"a", "b"}
    outbox.acknowledge(first.sequence)
    assert not outbox.idle, "an old number acknowledges nothing"
    outbox.begin([report("a", states.RUNNING)])
    fresh = await outbox.next_batch()
    assert fresh.sequence == 1
    assert [each.status.state for each in fresh.tasks] == [states.RUNNING]
