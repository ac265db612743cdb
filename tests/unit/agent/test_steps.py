"""What the agent does next for a task, in every situation that it can find."""

import dataclasses

import pytest

from agent.core import actions, steps
from agent.core.observed import Desired, Failure, Life, Observed
from agent.core.record import Exit, Record
from protos import states
from protos.orch.v1 import objects_pb2 as pb

NOW = 1_000_000
TEMPLATE = pb.TaskTemplate(
    container=pb.Container(image="hello:1"),
    restart=pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000),
    stop_grace_period=10_000,
)
RUN = Desired(state=pb.DESIRED_STATE_RUNNING, template=TEMPLATE)
HOLD = Desired(state=pb.DESIRED_STATE_READY, template=TEMPLATE)
STOP = Desired(state=pb.DESIRED_STATE_SHUTDOWN, template=TEMPLATE)
REMOVE = Desired(state=pb.DESIRED_STATE_REMOVE, template=TEMPLATE)
GONE = dataclasses.replace(RUN, gone=True)
FULL = dataclasses.replace(STOP, template=pb.TaskTemplate(container=TEMPLATE.container, volumes=[pb.TaskVolume()]))
LOST = dataclasses.replace(RUN, lost=True)
EXIT = Exit(code=1, finished_at=NOW - 10)


def at(state: int, **record: object) -> Observed:
    return Observed(record=Record(state=state, **record))  # type: ignore[arg-type]


def running(**more: object) -> Observed:
    record = Record(state=states.RUNNING, address="10.0.0.2", root_id=1 << 20, started_at=NOW - 500)
    return Observed(record=record, life=Life.RUNNING, image_ready=True, network_ready=True, **more)  # type: ignore[arg-type]


PORTS = pb.Container(ports=[pb.Port(target=80)])
SERVING = pb.TaskTemplate(container=PORTS, drain_seconds=2, stop_grace_period=10_000)
LEAVE = Desired(state=pb.DESIRED_STATE_SHUTDOWN, template=SERVING)
WITHDRAWN = dataclasses.replace(LEAVE, withdrawn=True)


def leaving(*, ago: int, draining_ago: int | None = None, **more: object) -> Observed:
    """A container that was told to stop so many ms ago, and gets no new connections since so many."""
    draining_since = NOW - draining_ago if draining_ago is not None else 0
    record = dataclasses.replace(running().record, leaving_since=NOW - ago, draining_since=draining_since)
    return dataclasses.replace(running(**more), record=record)


SICK = dataclasses.replace(
    running(), record=dataclasses.replace(running().record, unhealthy="liveness probe failed: x")
)

READY = Observed(
    record=Record(state=states.READY, address="10.0.0.2", root_id=1 << 20), image_ready=True, network_ready=True
)
CRASHED = dataclasses.replace(running(), life=Life.STOPPED, exit=EXIT)
NOTED = dataclasses.replace(CRASHED, exit=None, record=dataclasses.replace(CRASHED.record, exit=EXIT))
BETWEEN = dataclasses.replace(NOTED, life=Life.NONE)
RETRY = Failure(reason="Waiting", message="not yet", retry_at=NOW + 70)

TABLE = [
    ("a new task is accepted first", at(states.ASSIGNED), RUN, "enter ACCEPTED"),
    ("then it is prepared", at(states.ACCEPTED), RUN, "enter PREPARING"),
    ("its image comes first", at(states.PREPARING), RUN, "prepare image hello:1"),
    ("then its users", dataclasses.replace(at(states.PREPARING), image_ready=True), RUN, "take a range of user ids"),
    (
        "then its address, also when the users are the node's",
        dataclasses.replace(at(states.PREPARING, root_id=0), image_ready=True),
        RUN,
        "take an address",
    ),
    (
        "then its network",
        dataclasses.replace(at(states.PREPARING, address="10.0.0.2", root_id=1 << 20), image_ready=True),
        RUN,
        "attach to the network",
    ),
    (
        "then it is ready",
        dataclasses.replace(READY, record=dataclasses.replace(READY.record, state=states.PREPARING)),
        RUN,
        "enter READY",
    ),
    ("a task that is to be held is held", READY, HOLD, "wait: held until it is wanted to run"),
    ("else it is started", READY, RUN, "enter STARTING"),
    (
        "with one container",
        dataclasses.replace(READY, record=dataclasses.replace(READY.record, state=states.STARTING)),
        RUN,
        "start the container",
    ),
    (
        "a container that came up makes it run",
        dataclasses.replace(running(), record=Record(state=states.STARTING)),
        RUN,
        "enter RUNNING",
    ),
    ("which is all", running(), RUN, "wait: the container runs"),
    (
        "an adopted container needs neither image nor network looked at",
        dataclasses.replace(running(), image_ready=False),
        RUN,
        "wait: the container runs",
    ),
    ("an exit is written down before anything else", CRASHED, RUN, "note exit code 1"),
    ("also when it is told to stop", CRASHED, STOP, "note exit code 1"),
    ("then what is left of the container goes", NOTED, RUN, "delete the container"),
    ("then another one takes its place", BETWEEN, RUN, "start the container again"),
    (
        "but not before its time",
        dataclasses.replace(BETWEEN, record=dataclasses.replace(BETWEEN.record, restart_at=NOW + 1)),
        RUN,
        "wait: the next container is not due yet",
    ),
    (
        "a restart needs the image again after the agent was away",
        dataclasses.replace(BETWEEN, image_ready=False),
        RUN,
        "prepare image hello:1",
    ),
    (
        "what ended for good is cleaned up",
        dataclasses.replace(NOTED, record=dataclasses.replace(NOTED.record, ending=states.FAILED)),
        RUN,
        "delete the container",
    ),
    (
        "network included",
        dataclasses.replace(BETWEEN, record=dataclasses.replace(BETWEEN.record, ending=states.FAILED)),
        RUN,
        "detach from the network",
    ),
    (
        "its users last of all",
        at(states.RUNNING, root_id=1 << 20, exit=EXIT, ending=states.FAILED),
        RUN,
        "give the range of user ids back",
    ),
    (
        "before it is said to have failed",
        at(states.RUNNING, exit=EXIT, ending=states.FAILED),
        RUN,
        "enter FAILED (ExitCode: ended with exit code 1)",
    ),
    ("or to have completed", at(states.RUNNING, exit=EXIT, ending=states.COMPLETE), RUN, "enter COMPLETE"),
    ("told to stop, it is asked to", running(), STOP, "send the stop signal"),
    ("and given time", running(stop_asked_at=NOW - 9_999), STOP, "wait: it was asked to stop"),
    ("and then killed", running(stop_asked_at=NOW - 10_000), STOP, "send SIGKILL"),
    ("and removed by force", running(stop_asked_at=1, kill_asked_at=NOW - 5_000), STOP, "delete the container"),
    ("with ports it leaves the endpoints before that", running(), LEAVE, "leave the endpoints"),
    (
        "as long as a node may send it new connections",
        leaving(ago=9_999),
        LEAVE,
        "wait: other nodes may send it connections",
    ),
    ("which none does once they have said so", leaving(ago=3), WITHDRAWN, "drain connections"),
    ("and it does not wait for ever for one that is away", leaving(ago=10_000), LEAVE, "drain connections"),
    (
        "then what it has may end",
        leaving(ago=9_000, draining_ago=1_999),
        LEAVE,
        "wait: it drains its connections",
    ),
    ("within its time", leaving(ago=9_000, draining_ago=2_000), WITHDRAWN, "send the stop signal"),
    (
        "the grace period comes after that",
        leaving(ago=20_000, draining_ago=15_000, stop_asked_at=NOW - 9_000),
        WITHDRAWN,
        "wait: it was asked to stop",
    ),
    ("a clock that was set back adds nothing", leaving(ago=-1, draining_ago=-1), WITHDRAWN, "send the stop signal"),
    (
        "nobody withdraws what nobody knows",
        leaving(ago=1),
        dataclasses.replace(LEAVE, gone=True),
        "drain connections",
    ),
    ("nor what was given up", leaving(ago=1), dataclasses.replace(LEAVE, lost=True), "drain connections"),
    (
        "what has crashed meanwhile has no connections",
        dataclasses.replace(leaving(ago=1), life=Life.NONE),
        LEAVE,
        "detach from the network",
    ),
    (
        "what has not come up has none either",
        dataclasses.replace(running(), record=Record(state=states.STARTING, started_at=1)),
        LEAVE,
        "send the stop signal",
    ),
    ("what its probes give up is stopped without draining", SICK, RUN, "send the stop signal"),
    ("also when it is to stop for good", SICK, LEAVE, "send the stop signal"),
    ("within its grace period", dataclasses.replace(SICK, stop_asked_at=NOW - 1), RUN, "wait: it was asked to stop"),
    ("and then killed", dataclasses.replace(SICK, stop_asked_at=NOW - 10_000), RUN, "send SIGKILL"),
    (
        "its end is a failure that says why",
        dataclasses.replace(at(states.RUNNING, exit=EXIT, ending=states.FAILED, unhealthy="no", restarts=2)),
        RUN,
        "enter FAILED (ProbeFailed: no, after 2 restarts)",
    ),
    ("what never ran is just cleaned up", READY, STOP, "detach from the network"),
    ("and is then shut down", at(states.READY), STOP, "enter SHUTDOWN"),
    ("a record stays until it is to be removed", at(states.SHUTDOWN), STOP, "wait: it has ended"),
    ("its volumes do not", at(states.SHUTDOWN), FULL, "remove the volumes"),
    (
        "which is done once",
        dataclasses.replace(at(states.SHUTDOWN), volumes_gone=True),
        FULL,
        "wait: it has ended",
    ),
    ("then it goes", at(states.SHUTDOWN), REMOVE, "forget the task"),
    ("removal alone stops it, too", running(), REMOVE, "send the stop signal"),
    ("what the leader does not know stops", running(), GONE, "send the stop signal"),
    ("and is forgotten", at(states.FAILED), GONE, "forget the task"),
    ("what the leader gave up stops", running(), LOST, "send the stop signal"),
    (
        "a container of a task that has ended is stopped",
        dataclasses.replace(running(), record=Record(state=states.FAILED)),
        RUN,
        "send the stop signal",
    ),
    ("a failure waits for its time", dataclasses.replace(at(states.PREPARING), failure=RETRY), RUN, "wait: not yet"),
    (
        "a final failure before the start rejects",
        dataclasses.replace(at(states.PREPARING), failure=Failure(reason="ImageMissing", message="no", final=True)),
        RUN,
        "enter REJECTED (ImageMissing: no)",
    ),
    (
        "and fails later on",
        dataclasses.replace(at(states.RUNNING), failure=Failure(reason="ImageMissing", message="no", final=True)),
        RUN,
        "enter FAILED (ImageMissing: no)",
    ),
]


@pytest.mark.parametrize(("observed", "desired", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_next_step(observed: Observed, desired: Desired, step: str) -> None:
    """One row a situation."""
    assert steps.next_step(observed, desired, NOW).describe().removesuffix(" (: stopped)") == step


def test_waits_name_their_moment() -> None:
    """A wait that only time ends says when: the runner sets its alarm by it."""
    waiting = steps.next_step(running(stop_asked_at=NOW - 4_000), STOP, NOW)
    assert isinstance(waiting, actions.Wait)
    assert waiting.until == NOW + 6_000
