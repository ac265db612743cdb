"""What the agent does next for a task, in every situation that it can find."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import restart, steps
from agent.core.record import Exit, Record
from agent.core.status import status_of
from agent.core.steps import Desired, Failure, Life, Observed
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
)
@settings(max_examples=300, deadline=None)
def test_every_life_is_lawful(seed: int, desires: list[Desired]) -> None:
    """Whatever the world does: states only rise by the agent's own edges, there is never a second container, nothing
    is kept after the end, and a life that is wanted over is over within a bounded number of steps.
    """
    World(random.Random(seed)).live(
        sorted(desires, key=lambda desired: (desired.gone, desired.state, desired.withdrawn))
    )


class World:
    """Carries out steps on a machine made of a few variables, with mishaps drawn from a seed."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = NOW
        self.containers = 0
        self.observed = at(states.ASSIGNED)

    def live(self, desires: list[Desired]) -> None:
        for desired in [*desires, dataclasses.replace(REMOVE)]:
            self.observed = dataclasses.replace(self.observed, failure=None)
            for _ in range(self.chance.randrange(60)):
                if not self.advance(desired):
                    return
        for _ in range(200):
            if not self.advance(REMOVE):
                return
        raise AssertionError(f"not forgotten after 200 steps: {self.observed}")

    def advance(self, desired: Desired) -> bool:
        before = self.observed
        step = steps.next_step(before, desired, self.now)
        assert step == steps.next_step(before, desired, self.now), "the same state leads to the same step"
        after = self.act(step, before, desired)
        self.observed = after
        assert states.allowed(before.record.state, after.record.state, states.Owner.AGENT)
        assert self.containers <= 1
        assert after.record.restarts >= before.record.restarts
        status = status_of(after)
        assert not (status.ready and states.is_terminal(status.state))
        if isinstance(step, steps.Forget):
            assert self.containers == 0, "forgotten with a container"
            assert not after.network_ready, "forgotten with a network"
            assert after.record.root_id is None, "forgotten with users"
            return False
        return True

    def act(  # noqa: C901 - one case a step
        self, step: steps.Step, seen: Observed, desired: Desired
    ) -> Observed:
        change, record = dataclasses.replace, seen.record
        mishap = self.chance.random()
        if mishap < 0.1 and not isinstance(step, steps.Wait | steps.Enter | steps.NoteExit | steps.Forget):
            final = mishap < 0.03 and isinstance(step, steps.PrepareImage | steps.StartContainer)
            return change(seen, failure=Failure(reason="Bad", message="luck", retry_at=self.now + 50, final=final))
        if not (seen.failure and seen.failure.final):
            seen = change(seen, failure=None)
        match step:
            case steps.Wait():
                return self.wait(step, seen)
            case steps.Enter():
                return change(seen, record=change(record, state=step.state), failure=None)
            case steps.PrepareImage():
                return change(seen, image_ready=True)
            case steps.TakeUsers():
                return change(seen, record=change(record, root_id=self.chance.choice([0, 1 << 20])))
            case steps.FreeUsers():
                assert self.containers == 0, "another gets the users of a container"
                assert not seen.network_ready, "another gets the users that a network belongs to"
                return change(seen, record=change(record, root_id=None))
            case steps.TakeAddress():
                return change(seen, record=change(record, address="10.0.0.2"))
            case steps.AttachNetwork():
                return change(seen, network_ready=True)
            case steps.StartContainer():
                self.containers += 1
                if step.again:
                    record = restart.restarted(record, now_ms=self.now)
                return change(seen, record=change(record, started_at=self.now, unhealthy=""), life=Life.RUNNING)
            case steps.NoteExit() if steps.is_unwanted(desired) or states.is_terminal(record.state):
                return change(seen, exit=None, record=change(record, exit=step.exit))
            case steps.NoteExit():
                policy = desired.template.restart
                noted = restart.after_exit(record, step.exit, policy, now_ms=self.now, jitter=0.5)
                return change(seen, exit=None, record=noted)
            case steps.Leave():
                return change(seen, record=change(record, leaving_since=self.now))
            case steps.Drain():
                return change(seen, record=change(record, draining_since=self.now))
            case steps.Stop():
                return change(seen, stop_asked_at=self.now)
            case steps.Kill():
                return change(seen, kill_asked_at=self.now)
            case steps.DeleteContainer():
                self.containers = 0
                return change(seen, life=Life.NONE, exit=None, stop_asked_at=0, kill_asked_at=0)
            case steps.DetachNetwork():
                return change(seen, network_ready=False, record=change(record, address=""))
            case steps.Forget():
                return seen

    def wait(self, step: steps.Wait, seen: Observed) -> Observed:
        if seen.life is Life.RUNNING and self.chance.random() < 0.1:
            return dataclasses.replace(seen, record=dataclasses.replace(seen.record, unhealthy="startup probe failed"))
        if seen.life is Life.RUNNING and self.chance.random() < 0.3:
            ended = Exit(code=self.chance.choice([0, 1, 137]), finished_at=self.now)
            return dataclasses.replace(seen, life=Life.STOPPED, exit=ended)
        self.now = max(self.now + 1, step.until)
        return seen
