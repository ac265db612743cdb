"""What the agent does next for a task, in every situation that it can find."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import restart, steps
from agent.core.record import ContainerRecord, Exit, Record
from agent.core.status import status_of
from agent.core.steps import Desired, Failure, Life, Observed, Sight
from protos import states
from protos.orch.v1 import objects_pb2 as pb

NOW = 1_000_000
TEMPLATE = pb.TaskTemplate(
    container=pb.Container(image="hello:1"),
    restart=pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000),
    stop_grace_period=10_000,
)
HOOKED = pb.Lifecycle(pre_stop=pb.Hook(sleep=1_000))
CROWD = pb.TaskTemplate(
    container=pb.Container(image="hello:1", lifecycle=HOOKED),
    init=[pb.Container(name="fetch", image="tool:1"), pb.Container(name="migrate", image="tool:2")],
    sidecars=[pb.Container(name="proxy", image="proxy:1"), pb.Container(name="logger", image="logger:1")],
    restart=TEMPLATE.restart,
    stop_grace_period=10_000,
)
RUN = Desired(state=pb.DESIRED_STATE_RUNNING, template=TEMPLATE)
HOLD = Desired(state=pb.DESIRED_STATE_READY, template=TEMPLATE)
STOP = Desired(state=pb.DESIRED_STATE_SHUTDOWN, template=TEMPLATE)
REMOVE = Desired(state=pb.DESIRED_STATE_REMOVE, template=TEMPLATE)
GONE = dataclasses.replace(RUN, gone=True)
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


@pytest.mark.parametrize(("observed", "desired", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_next_step(observed: Observed, desired: Desired, step: str) -> None:
    """One row a situation."""
    assert steps.next_step(observed, desired, NOW).describe().removesuffix(" (: stopped)") == step


def test_waits_name_their_moment() -> None:
    """A wait that only time ends says when: the runner sets its alarm by it."""
    waiting = steps.next_step(running(stop_asked_at=NOW - 4_000), STOP, NOW)
    assert isinstance(waiting, steps.Wait)
    assert waiting.until == NOW + 6_000


@given(
    seed=st.integers(0, 2**32),
    desires=st.lists(st.sampled_from([HOLD, RUN, STOP, LEAVE, WITHDRAWN, REMOVE, GONE]), max_size=4),
    template=st.sampled_from([TEMPLATE, CROWD]),
)
@settings(max_examples=400, deadline=None)
def test_every_life_is_lawful(seed: int, desires: list[Desired], template: pb.TaskTemplate) -> None:
    """Whatever the world does: states only rise by the agent's own edges, there is never a second container of a name,
    those around the main one come in their order, nothing is kept after the end, and a life that is wanted over is over
    within a bounded number of steps.
    """
    ordered = sorted(desires, key=lambda desired: (desired.gone, desired.state, desired.withdrawn))
    crowded = [dataclasses.replace(one, template=template) if template is CROWD else one for one in ordered]
    World(random.Random(seed), template).live(crowded)


class World:
    """Carries out steps on a machine made of a few variables, with mishaps drawn from a seed."""

    def __init__(self, chance: random.Random, template: pb.TaskTemplate = TEMPLATE) -> None:
        self.chance = chance
        self.now = NOW
        self.containers: set[str] = set()
        self.ended_well: set[str] = set()
        self.observed = at(states.ASSIGNED)
        self.last = dataclasses.replace(REMOVE, template=template)

    def live(self, desires: list[Desired]) -> None:
        for desired in [*desires, self.last]:
            self.observed = dataclasses.replace(self.observed, failure=None)
            for _ in range(self.chance.randrange(60)):
                if not self.advance(desired):
                    return
        for _ in range(300):
            if not self.advance(self.last):
                return
        raise AssertionError(f"not forgotten after 300 steps: {self.observed}")

    def advance(self, desired: Desired) -> bool:
        before = self.observed
        step = steps.next_step(before, desired, self.now)
        assert step == steps.next_step(before, desired, self.now), "the same state leads to the same step"
        after = self.act(step, before, desired)
        self.observed = after
        assert states.allowed(before.record.state, after.record.state, states.Owner.AGENT)
        assert after.record.restarts >= before.record.restarts
        status = status_of(after, desired)
        assert not (status.ready and states.is_terminal(status.state))
        assert not status.ready or not desired.template.sidecars or "proxy" in self.containers
        if isinstance(step, steps.Forget):
            assert not self.containers, "forgotten with a container"
            assert not after.network_ready, "forgotten with a network"
            assert after.record.root_id is None, "forgotten with users"
            return False
        return True

    def act(self, step: steps.Step, seen: Observed, desired: Desired) -> Observed:
        mishap = self.chance.random()
        if mishap < 0.1 and not isinstance(step, steps.Wait | steps.Enter | steps.NoteExit | steps.Forget):
            final = mishap < 0.03 and isinstance(step, steps.PrepareImage | steps.StartContainer)
            failure = Failure(reason="Bad", message="luck", retry_at=self.now + 50, final=final)
            return dataclasses.replace(seen, failure=failure)
        if not (seen.failure and seen.failure.final):
            seen = dataclasses.replace(seen, failure=None)
        if isinstance(step, steps.ContainerStep):
            sight = self.act_on_container(step, seen.of(step.container), seen, desired)
            return seen.with_one(step.container, sight)
        return self.act_on_task(step, seen)

    def act_on_task(  # noqa: C901 - one case a step
        self, step: steps.TaskStep, seen: Observed
    ) -> Observed:
        change, record = dataclasses.replace, seen.record
        match step:
            case steps.Wait():
                return self.wait(step, seen)
            case steps.Enter():
                return change(seen, record=change(record, state=step.state), failure=None)
            case steps.TakeUsers():
                return change(seen, record=change(record, root_id=self.chance.choice([0, 1 << 20])))
            case steps.FreeUsers():
                assert not self.containers, "another gets the users of a container"
                assert not seen.network_ready, "another gets the users that a network belongs to"
                return change(seen, record=change(record, root_id=None))
            case steps.TakeAddress():
                return change(seen, record=change(record, address="10.0.0.2"))
            case steps.AttachNetwork():
                return change(seen, network_ready=True)
            case steps.Leave():
                return change(seen, record=change(record, leaving_since=self.now))
            case steps.Drain():
                return change(seen, record=change(record, draining_since=self.now))
            case steps.DetachNetwork():
                assert not self.containers, "a container without its network"
                return change(seen, network_ready=False, record=change(record, address=""))
            case steps.Forget():
                return seen

    def act_on_container(self, step: steps.ContainerStep, sight: Sight, seen: Observed, desired: Desired) -> Sight:
        change, record = dataclasses.replace, sight.record
        match step:
            case steps.PrepareImage():
                return change(sight, image_ready=True)
            case steps.StartContainer():
                self.check_order(step.container, desired)
                self.containers.add(step.container)
                if step.again:
                    record = restart.restarted(record, now_ms=self.now)
                return change(sight, record=change(record, started_at=self.now, unhealthy=""), life=Life.RUNNING)
            case steps.NoteExit() if steps.is_unwanted(desired) or states.is_terminal(seen.record.state):
                return change(sight, exit=None, record=change(record, exit=step.exit))
            case steps.NoteExit():
                return change(sight, exit=None, record=self.noted(step, record, desired))
            case steps.PrepareStop():
                return change(sight, prepare_stop_at=self.now)
            case steps.Stop():
                return change(sight, stop_asked_at=self.now)
            case steps.Kill():
                return change(sight, kill_asked_at=self.now)
            case steps.DeleteContainer():
                self.containers.discard(step.container)
                return change(sight, life=Life.NONE, exit=None, prepare_stop_at=0, stop_asked_at=0, kill_asked_at=0)

    def check_order(self, name: str, desired: Desired) -> None:
        assert name not in self.containers, f"two containers called {name!r}"
        assert name not in self.ended_well, f"init container {name} runs again"
        inits, sidecars = ({one.name for one in part} for part in (desired.template.init, desired.template.sidecars))
        if name not in inits:
            assert inits <= self.ended_well, f"{name!r} is started before {inits - self.ended_well} have ended well"
        if not name and not self.observed.record.started_at:
            assert sidecars <= self.containers, "the main container is started before its sidecars"

    def noted(self, step: steps.NoteExit, record: ContainerRecord, desired: Desired) -> ContainerRecord:
        policy = desired.template.restart
        if any(one.name == step.container for one in desired.template.sidecars):
            return restart.after_sidecar_exit(record, step.exit, now_ms=self.now, jitter=0.5)
        if not step.container:
            return restart.after_exit(record, step.exit, policy, now_ms=self.now, jitter=0.5)
        if step.exit.code == 0:
            self.ended_well.add(step.container)
        return restart.after_init_exit(record, step.exit, policy, now_ms=self.now, jitter=0.5)

    def wait(self, step: steps.Wait, seen: Observed) -> Observed:
        running = [name for name, sight in seen.each if sight.life is Life.RUNNING]
        if running and (luck := self.chance.random()) < 0.4:
            name = self.chance.choice(running)
            sight = seen.of(name)
            if luck < 0.1 and name not in {"fetch", "migrate"}:
                sick = dataclasses.replace(sight.record, unhealthy="startup probe failed")
                return seen.with_one(name, dataclasses.replace(sight, record=sick))
            ended = Exit(code=self.chance.choice([0, 1, 137]), finished_at=self.now)
            return seen.with_one(name, dataclasses.replace(sight, life=Life.STOPPED, exit=ended))
        self.now = max(self.now + 1, step.until)
        return seen
