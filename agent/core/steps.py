"""What to do next for one task: a function from what is there and what is wanted to exactly one step.

Two rules. The answer depends on the state alone, so that an agent which forgot everything but the disk and the kernel
goes on where it stopped. And there is at most one container of each name for a task: another is started only after the
runtime holds none.

    ACCEPTED ─► PREPARING: images, users, network ─► READY ─► STARTING: containers ─► RUNNING ─┐
                                                                  ▲                            │ exit of the main one
                                                 again, after a while ◄────────────────────────┴──► COMPLETE, FAILED

A task with ports that is to stop leaves the services' endpoints first, then goes on with the connections that it has:

    told to stop ─► leave: until no node sends it new connections, 10 s at most ─► drain ─► stop signal ─► SIGKILL
"""

from agent.core import around, stopping
from agent.core.actions import (
    AttachNetwork,
    DetachNetwork,
    Enter,
    Forget,
    FreeUsers,
    NoteExit,
    PrepareImage,
    RemoveVolumes,
    StartContainer,
    Step,
    TakeAddress,
    TakeUsers,
    Wait,
)
from agent.core.observed import Desired, Life, Observed, is_unwanted
from protos import families, states
from protos.orch.v1 import objects_pb2 as pb
from protos.states import State

CLEANUP_ATTEMPTS = 5
"""After so many failures of a clean-up the task's end is reported all the same; the clean-up is still repeated."""


def next_step(observed: Observed, desired: Desired, now_ms: int) -> Step:
    """The one step that brings the task nearer to what is wanted."""
    for name, sight in observed.each:
        if sight.life is Life.STOPPED and sight.exit is not None:
            return NoteExit(exit=sight.exit, container=name)
    waiting = _retry_wait(observed, now_ms)
    if waiting is not None:
        return waiting
    if states.is_terminal(observed.record.state):
        return _after_the_end(observed, desired, now_ms)
    if is_unwanted(desired):
        drain = stopping.drain(observed, desired, now_ms)
        return drain or _end(observed, desired, states.SHUTDOWN, ("stopped", ""), now_ms)
    if observed.failure is not None and observed.failure.final:
        state = states.REJECTED if observed.record.state < states.STARTING else states.FAILED
        return _end(observed, desired, state, (observed.failure.message, observed.failure.reason), now_ms)
    if observed.record.ending is not None:
        return _end(observed, desired, observed.record.ending, observed.record.why_ended, now_ms)
    init = around.has_given_up(observed)
    if init:
        message, reason = observed.of(init).record.why_ended
        return _end(observed, desired, states.FAILED, (f"init container {init}: {message}", reason), now_ms)
    return _climb(observed, desired, now_ms)


def _retry_wait(observed: Observed, now_ms: int) -> Wait | None:
    failure = observed.failure
    if failure is None or failure.final or now_ms >= failure.retry_at:
        return None
    return Wait(until=failure.retry_at, why=failure.message)


def _climb(observed: Observed, desired: Desired, now_ms: int) -> Step:
    """One step up: towards READY when the task is to be held there, else towards containers that run."""
    record = observed.record
    if observed.life is Life.RUNNING and record.state < states.RUNNING:
        return Enter(state=states.RUNNING)
    tending = around.tend(observed, desired, now_ms)
    if tending is not None and not isinstance(tending, Wait):
        return tending
    wanted = around.to_start(observed, desired, now_ms)
    if not wanted:
        return _wait(observed, desired, tending, now_ms)
    prepare = _prepare(observed, desired, wanted)
    if prepare is not None:
        return prepare
    if desired.state == pb.DESIRED_STATE_READY:
        return Wait(why=desired.waits_for or "held until it is wanted to run")
    if record.state < states.STARTING:
        return Enter(state=states.STARTING)
    first = observed.of(wanted[0]).record
    return StartContainer(container=wanted[0], again=first.started_at > 0 or first.exit is not None)


def _wait(observed: Observed, desired: Desired, tending: Step | None, now_ms: int) -> Step:
    """Nothing is to be started now: until something ends, answers, or is due."""
    due = around.next_due(observed, now_ms)
    waiting = around.sooner(tending, Wait(until=due, why="the next container is not due yet") if due else None)
    return waiting or Wait(why=around.why_waiting(observed, desired) or "the container runs")


def _prepare(observed: Observed, desired: Desired, wanted: tuple[str, ...]) -> Step | None:
    """One step towards READY; None when the task is there. Later on it is what `wanted` containers need."""
    state = observed.record.state
    if state < states.ACCEPTED:
        return Enter(state=states.ACCEPTED)
    if state < states.PREPARING:
        return Enter(state=states.PREPARING)
    for name in _to_prepare(desired) if state < states.READY else wanted:
        if not observed.of(name).image_ready:
            return PrepareImage(reference=desired.container(name).image, container=name)
    if observed.record.root_id is None:
        return TakeUsers()
    if not families.every(observed.record):
        return TakeAddress()
    if not observed.network_ready:
        return AttachNetwork()
    if state < states.READY:
        return Enter(state=states.READY)
    return None


def _to_prepare(desired: Desired) -> tuple[str, ...]:
    return (*desired.others, "")


def _end(observed: Observed, desired: Desired, state: State, words: tuple[str, str], now_ms: int) -> Step:
    """Stop and clean up, then say so: whoever hears of the end may count on the address and the ports being free."""
    stop = stopping.stop_all(observed, desired, now_ms)
    if stop is not None:
        return stop
    cleanup = _clean_up(observed)
    stubborn = observed.failure is not None and observed.failure.attempts >= CLEANUP_ATTEMPTS
    if cleanup is not None and not stubborn:
        return cleanup
    message, reason = words
    return Enter(state=state, message=message, reason=reason)


def _after_the_end(observed: Observed, desired: Desired, now_ms: int) -> Step:
    """A task that has ended keeps nothing; its record goes when it is to be removed.

    What is in its volumes may take long to remove, so its end is told before that.
    """
    stop = stopping.stop_all(observed, desired, now_ms)
    if stop is not None:
        return stop
    cleanup = _clean_up(observed)
    if cleanup is not None:
        return cleanup
    if desired.gone or desired.state == pb.DESIRED_STATE_REMOVE:
        return Forget()
    if desired.template.volumes and not observed.volumes_gone:
        return RemoveVolumes()
    return Wait(why="it has ended")


def _clean_up(observed: Observed) -> Step | None:
    left = stopping.clean_up(observed)
    if left is not None:
        return left
    if observed.network_ready or families.every(observed.record):
        return DetachNetwork()
    if observed.record.root_id is not None:
        return FreeUsers()
    return None
