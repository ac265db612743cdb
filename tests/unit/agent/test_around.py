"""What the agent does next for a task of several containers, and what it says of them."""

import dataclasses

import pytest

from agent.core import steps
from agent.core.observed import Desired, Life, Observed, Sight
from agent.core.record import ContainerRecord, Exit, Record
from agent.core.status import status_of
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.agent.test_steps import EXIT, HOLD, NOW, TEMPLATE, at

HOOKED = pb.Lifecycle(pre_stop=pb.Hook(sleep=1_000))
CROWD = pb.TaskTemplate(
    container=pb.Container(image="hello:1", lifecycle=HOOKED),
    init=[pb.Container(name="fetch", image="tool:1"), pb.Container(name="migrate", image="tool:2")],
    sidecars=[pb.Container(name="proxy", image="proxy:1"), pb.Container(name="logger", image="logger:1")],
    restart=TEMPLATE.restart,
    stop_grace_period=10_000,
    volumes=[pb.TaskVolume(name="work")],
)

WELL = ContainerRecord(ending=states.COMPLETE, exit=Exit(code=0, finished_at=NOW - 10), started_at=NOW - 20)
INITS = {"fetch": Sight(record=WELL, image_ready=True), "migrate": Sight(record=WELL, image_ready=True)}
UP = Sight(record=ContainerRecord(started_at=NOW - 9), life=Life.RUNNING, image_ready=True)
ALL_RUN = Desired(state=pb.DESIRED_STATE_RUNNING, template=CROWD)
ALL_STOP = Desired(state=pb.DESIRED_STATE_SHUTDOWN, template=CROWD)


def crowd(state: int = states.STARTING, **others: Sight) -> Observed:
    """A task with its network and images, in which nothing runs but what is told."""
    record = Record(state=state, address="10.0.0.2", root_id=0)  # type: ignore[arg-type]
    there = {name: Sight(image_ready=True) for name in ("fetch", "migrate", "proxy", "logger")}
    return Observed(record=record, image_ready=True, network_ready=True, others={**there, **others})


def up(state: int = states.RUNNING, *, main: object = None, **others: Sight) -> Observed:
    """The same with everything up."""
    made = crowd(state, **{**INITS, "proxy": UP, "logger": UP, **others})
    record = dataclasses.replace(made.record, started_at=NOW - 5)
    return dataclasses.replace(made, **{"life": Life.RUNNING, "record": record, **(main or {})})  # type: ignore[call-overload]


def ended(sight: Sight, code: int) -> Sight:
    return dataclasses.replace(sight, life=Life.STOPPED, exit=Exit(code=code, finished_at=NOW))


LATER = dataclasses.replace(UP.record, exit=EXIT, restart_at=NOW + 900)
CROWDED = [
    ("every image is there before READY", at(states.PREPARING), ALL_RUN, "prepare image tool:1"),
    (
        "a task that is held starts nothing",
        crowd(states.READY),
        dataclasses.replace(HOLD, template=CROWD),
        "wait: held",
    ),
    ("the first init container comes first", crowd(), ALL_RUN, "start container fetch"),
    ("the next one waits for it", crowd(fetch=UP), ALL_RUN, "wait: init container fetch (1 of 2) runs"),
    ("its end is noted", crowd(fetch=ended(UP, 0)), ALL_RUN, "note exit code 0 of container fetch"),
    (
        "it makes way",
        crowd(fetch=dataclasses.replace(INITS["fetch"], life=Life.STOPPED)),
        ALL_RUN,
        "delete container fetch",
    ),
    ("then the second one", crowd(fetch=INITS["fetch"]), ALL_RUN, "start container migrate"),
    (
        "one that failed is started again when it is due",
        crowd(fetch=Sight(record=dataclasses.replace(LATER, restart_at=NOW - 1), image_ready=True)),
        ALL_RUN,
        "start container fetch again",
    ),
    ("and not before", crowd(fetch=Sight(record=LATER)), ALL_RUN, "wait: the next container is not due yet"),
    (
        "one that gave up ends the task",
        crowd(fetch=Sight(record=dataclasses.replace(WELL, exit=EXIT, ending=states.FAILED))),
        ALL_RUN,
        "detach from the network",
    ),
    ("then the first sidecar", crowd(**INITS), ALL_RUN, "start container proxy"),
    (
        "the next one waits until it is ready",
        crowd(**INITS, proxy=dataclasses.replace(UP, record=dataclasses.replace(UP.record, ready=False))),
        ALL_RUN,
        "wait: sidecar proxy is not ready yet",
    ),
    ("then the second one", crowd(**INITS, proxy=UP), ALL_RUN, "start container logger"),
    ("the main container comes last", crowd(**INITS, proxy=UP, logger=UP), ALL_RUN, "start the container"),
    ("then everything runs", up(), ALL_RUN, "wait: the container runs"),
    (
        "a sidecar that ends makes way",
        up(proxy=dataclasses.replace(UP, life=Life.STOPPED)),
        ALL_RUN,
        "delete container proxy",
    ),
    (
        "and is started again while the main container runs",
        up(proxy=Sight(record=dataclasses.replace(LATER, restart_at=0), image_ready=True)),
        ALL_RUN,
        "start container proxy again",
    ),
    (
        "an image is looked for again by an agent that has come back",
        up(proxy=Sight(record=dataclasses.replace(LATER, restart_at=0))),
        ALL_RUN,
        "prepare image proxy:1",
    ),
    (
        "a sidecar that is unhealthy is stopped",
        up(proxy=dataclasses.replace(UP, record=dataclasses.replace(UP.record, unhealthy="x"))),
        ALL_RUN,
        "send the stop signal to container proxy",
    ),
    (
        "init containers do not run again with the main one",
        up(main={"life": Life.NONE, "record": dataclasses.replace(up().record, exit=EXIT)}),
        ALL_RUN,
        "start the container again",
    ),
    ("a stop begins with the main one's hook", up(), ALL_STOP, "run the preStop hook"),
    ("which has its time", up(main={"prepare_stop_at": NOW - 900}), ALL_STOP, "wait: its preStop hook runs"),
    ("but no more than that", up(main={"prepare_stop_at": NOW - 10_000}), ALL_STOP, "send the stop signal"),
    (
        "then comes its signal",
        up(main={"prepare_stop_at": NOW - 900, "stop_prepared": True}),
        ALL_STOP,
        "send the stop signal",
    ),
    (
        "the hook is part of the time that it has",
        up(main={"prepare_stop_at": NOW - 10_000, "stop_prepared": True, "stop_asked_at": NOW - 2_000}),
        ALL_STOP,
        "send SIGKILL",
    ),
    (
        "the sidecars wait for its end",
        up(main={"prepare_stop_at": NOW - 900, "stop_prepared": True, "stop_asked_at": NOW - 100}),
        ALL_STOP,
        "wait: it was asked to stop",
    ),
    ("then the last sidecar", up(main={"life": Life.NONE}), ALL_STOP, "send the stop signal to container logger"),
    (
        "then the one before it",
        up(main={"life": Life.NONE}, logger=dataclasses.replace(UP, life=Life.NONE)),
        ALL_STOP,
        "send the stop signal to container proxy",
    ),
    (
        "a main container that has ended for good takes its sidecars with it",
        up(main={"life": Life.NONE, "record": dataclasses.replace(up().record, exit=EXIT, ending=states.COMPLETE)}),
        ALL_RUN,
        "send the stop signal to container logger",
    ),
    (
        "an init container that runs is stopped, too",
        crowd(fetch=UP),
        ALL_STOP,
        "send the stop signal to container fetch",
    ),
]


@pytest.mark.parametrize(("observed", "desired", "step"), [row[1:] for row in CROWDED], ids=[row[0] for row in CROWDED])
def test_next_step_among_several_containers(observed: Observed, desired: Desired, step: str) -> None:
    """One row a situation."""
    assert steps.next_step(observed, desired, NOW).describe().startswith(step)


SAID = [
    (crowd(fetch=UP), ALL_RUN, "init container fetch (1 of 2) runs"),
    (
        crowd(fetch=Sight(record=LATER)),
        ALL_RUN,
        "init container fetch (1 of 2): ended with exit code 1; restart 1 is next",
    ),
    (crowd(**INITS, proxy=Sight()), ALL_RUN, "sidecar proxy is not ready yet"),
    (up(logger=Sight(record=LATER)), ALL_RUN, "sidecar logger: ended with exit code 1; restart 1 is next"),
    (up(), ALL_RUN, ""),
    (
        crowd(states.READY),
        dataclasses.replace(HOLD, template=CROWD, waits_for="database to be ready"),
        "waits for database to be ready",
    ),
]


@pytest.mark.parametrize(("observed", "desired", "message"), SAID, ids=[row[2] or "nothing" for row in SAID])
def test_the_status_says_which_container_it_is_about(observed: Observed, desired: Desired, message: str) -> None:
    """And the task is ready only when all of them are."""
    status = status_of(observed, desired)
    assert status.message == message
    assert status.ready == (message == "")
