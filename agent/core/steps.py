"""What to do next for one task: a function from what is there and what is wanted to exactly one step.

Two rules. The answer depends on the state alone, so that an agent which forgot everything but the disk and the kernel
goes on where it stopped. And there is at most one container for a task: another is started only after the runtime
holds none.

    ACCEPTED ─► PREPARING: image, users, network ─► READY ─► STARTING: container ─► RUNNING ─┐
                                                      ▲                                      │ exit
                                                      └── container again, after a while ◄───┴──► COMPLETE, FAILED

A task with ports that is to stop leaves the services' endpoints first, then goes on with the connections that it has:

    told to stop ─► leave: until no node sends it new connections, 10 s at most ─► drain ─► stop signal ─► SIGKILL
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from agent.core.record import Exit, Record
from protos import families, states
from protos.orch.v1 import objects_pb2 as pb
from protos.states import State

KILLED_WAIT_MS = 5_000
"""How long after SIGKILL the container may still be there before it is removed by force."""

WITHDRAWAL_MS = 10_000
"""How long a task that is to stop waits at most until no node sends it new connections. A control plane that is away
holds it up no longer. It is more than a change of leaders takes: the new one has to tell the nodes what the old one may
not have told all of them. (A node that does not answer is the leader's affair, which waits less for it.)"""

CLEANUP_ATTEMPTS = 5
"""After so many failures of a clean-up the task's end is reported all the same; the clean-up is still repeated."""


class Life(Enum):
    """What the runtime has under the task's id."""

    NONE = "none"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last step failed."""

    reason: str
    message: str
    attempts: int = 1  # of the same step, in a row
    retry_at: int = 0  # ms; not looked at when it is final
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What there is of a task on this node."""

    record: Record
    life: Life = Life.NONE
    exit: Exit | None = None  # of the STOPPED container, until it is noted in the record
    image_ready: bool = False
    network_ready: bool = False
    stop_asked_at: int = 0  # ms; 0: not yet
    kill_asked_at: int = 0
    not_ready: str = ""  # why the running container is not ready, as far as its probes have said
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What is wanted of a task. It only rises, and the template never changes."""

    state: pb.DesiredState.ValueType
    template: pb.TaskTemplate
    gone: bool = False  # the leader has no record of it: nothing is kept, nothing is reported
    lost: bool = False  # the leader gave it up while this node was out of reach: it stops, nothing is reported
    withdrawn: bool = False  # it is to stop, and no node sends it new connections any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Enter:
    """Say that the task has reached a state."""

    state: State
    message: str = ""
    reason: str = ""

    def describe(self) -> str:
        return f"enter {states.word(self.state)}" + (f" ({self.reason}: {self.message})" if self.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareImage:
    """Have the image's layers on this node."""

    reference: str

    def describe(self) -> str:
        return f"prepare image {self.reference}"


@dataclass(frozen=True, slots=True)
class TakeUsers:
    """Give the task users of its own, or the node's; written down before anything is made for them."""

    def describe(self) -> str:
        return "take a range of user ids"


@dataclass(frozen=True, slots=True)
class TakeAddress:
    """Give the task an address and its ports; written down before anything is made with them."""

    def describe(self) -> str:
        return "take an address"


@dataclass(frozen=True, slots=True)
class AttachNetwork:
    """Make the task's network namespace with its address, and publish its ports."""

    def describe(self) -> str:
        return "attach to the network"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer:
    """Start the container; `again` when it takes the place of one that ended."""

    again: bool

    def describe(self) -> str:
        return "start the container again" if self.again else "start the container"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteExit:
    """Write down how the container ended, and what follows."""

    exit: Exit

    def describe(self) -> str:
        return f"note exit code {self.exit.code}"


@dataclass(frozen=True, slots=True)
class Leave:
    """Write down since when the task is to stop, and so has to leave the endpoints."""

    def describe(self) -> str:
        return "leave the endpoints"


@dataclass(frozen=True, slots=True)
class Drain:
    """Write down since when the task gets no new connections."""

    def describe(self) -> str:
        return "drain connections"


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the container to stop."""

    def describe(self) -> str:
        return "send the stop signal"


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the container: it did not stop when asked to."""

    def describe(self) -> str:
        return "send SIGKILL"


@dataclass(frozen=True, slots=True)
class DeleteContainer:
    """Remove what the runtime has of the container."""

    def describe(self) -> str:
        return "delete the container"


@dataclass(frozen=True, slots=True)
class DetachNetwork:
    """Take the task's ports, address and network namespace away."""

    def describe(self) -> str:
        return "detach from the network"


@dataclass(frozen=True, slots=True)
class FreeUsers:
    """Let others have the task's users: nothing that is theirs runs or is pinned any more."""

    def describe(self) -> str:
        return "give the range of user ids back"


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the task's record, log and files. The last step."""

    def describe(self) -> str:
        return "forget the task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do until something changes, or until a moment."""

    until: int = 0  # ms; 0: no moment
    why: str

    def describe(self) -> str:
        return f"wait: {self.why}"


Step: TypeAlias = (
    Enter
    | PrepareImage
    | TakeUsers
    | TakeAddress
    | AttachNetwork
    | StartContainer
    | NoteExit
    | Leave
    | Drain
    | Stop
    | Kill
    | DeleteContainer
    | DetachNetwork
    | FreeUsers
    | Forget
    | Wait
)


def next_step(observed: Observed, desired: Desired, now_ms: int) -> Step:
    """The one step that brings the task nearer to what is wanted."""
    if observed.life is Life.STOPPED and observed.exit is not None:
        return NoteExit(exit=observed.exit)
    waiting = _retry_wait(observed, now_ms)
    if waiting is not None:
        return waiting
    if states.is_terminal(observed.record.state):
        return _after_the_end(observed, desired, now_ms)
    if is_unwanted(desired):
        stop = _drain(observed, desired, now_ms) or _stop(observed, desired, now_ms)
        return stop or _end(observed, states.SHUTDOWN, "stopped", "")
    if observed.failure is not None and observed.failure.final:
        state = states.REJECTED if observed.record.state < states.STARTING else states.FAILED
        return _end(observed, state, observed.failure.message, observed.failure.reason)
    if observed.record.ending is not None:
        return _end(observed, observed.record.ending, *observed.record.why_ended)
    return _climb(observed, desired, now_ms)


def is_unwanted(desired: Desired) -> bool:
    """Whether the task is to stop."""
    return desired.gone or desired.lost or desired.state >= pb.DESIRED_STATE_SHUTDOWN


def _retry_wait(observed: Observed, now_ms: int) -> Wait | None:
    failure = observed.failure
    if failure is None or failure.final or now_ms >= failure.retry_at:
        return None
    return Wait(until=failure.retry_at, why=failure.message)


def _climb(observed: Observed, desired: Desired, now_ms: int) -> Step:
    """One step up: towards READY when the task is to be held there, else towards a running container."""
    record = observed.record
    if observed.life is Life.RUNNING:
        if record.state < states.RUNNING:
            return Enter(state=states.RUNNING)
        stop = _stop(observed, desired, now_ms) if record.unhealthy else None
        return stop or Wait(why="the container runs")
    if observed.life is Life.STOPPED:
        return DeleteContainer()
    if record.restart_at > now_ms:
        return Wait(until=record.restart_at, why="the next container is not due yet")
    prepare = _prepare(observed, desired)
    if prepare is not None:
        return prepare
    if desired.state == pb.DESIRED_STATE_READY:
        return Wait(why="held until it is wanted to run")
    if record.state < states.STARTING:
        return Enter(state=states.STARTING)
    return StartContainer(again=record.started_at > 0 or record.exit is not None)


def _prepare(observed: Observed, desired: Desired) -> Step | None:
    """One step towards READY; None when the task is there."""
    state = observed.record.state
    if state < states.ACCEPTED:
        return Enter(state=states.ACCEPTED)
    if state < states.PREPARING:
        return Enter(state=states.PREPARING)
    if not observed.image_ready:
        return PrepareImage(reference=desired.template.container.image)
    if observed.record.root_id is None:
        return TakeUsers()
    if not families.every(observed.record):
        return TakeAddress()
    if not observed.network_ready:
        return AttachNetwork()
    if state < states.READY:
        return Enter(state=states.READY)
    return None


def _drain(observed: Observed, desired: Desired, now_ms: int) -> Step | None:
    """What comes before the stop signal; None when that is due.

    Only what may have connections has anything to wait for: it has ports, it has run, and it was not stopped already.
    """
    record = observed.record
    serves = observed.life is Life.RUNNING and record.state == states.RUNNING and desired.template.container.ports
    if not serves or record.unhealthy or observed.stop_asked_at:
        return None
    if not record.leaving_since:
        return Leave()
    if not record.draining_since:
        # Of a task that the leader does not know, or gave up, there has long been no endpoint.
        withdrawn = desired.withdrawn or desired.gone or desired.lost
        if not withdrawn and _lasts(record.leaving_since, WITHDRAWAL_MS, now_ms):
            return Wait(until=record.leaving_since + WITHDRAWAL_MS, why="other nodes may send it connections")
        return Drain()
    drain_ms = desired.template.drain_seconds * 1000
    if _lasts(record.draining_since, drain_ms, now_ms):
        return Wait(until=record.draining_since + drain_ms, why="it drains its connections")
    return None


def _lasts(since: int, duration_ms: int, now_ms: int) -> bool:
    """Whether the time is not over. A moment that is still to come was noted before the clock was set back."""
    return since <= now_ms < since + duration_ms


def _stop(observed: Observed, desired: Desired, now_ms: int) -> Step | None:
    """The signal, the grace period, SIGKILL, and force; None when nothing runs."""
    if observed.life is not Life.RUNNING:
        return None
    if not observed.stop_asked_at:
        return Stop()
    if not observed.kill_asked_at:
        deadline = observed.stop_asked_at + desired.template.stop_grace_period
        return Wait(until=deadline, why="it was asked to stop") if now_ms < deadline else Kill()
    deadline = observed.kill_asked_at + KILLED_WAIT_MS
    return Wait(until=deadline, why="it was killed") if now_ms < deadline else DeleteContainer()


def _end(observed: Observed, state: State, message: str, reason: str) -> Step:
    """Clean up, then say so: whoever hears of the end may count on the address and the ports being free."""
    cleanup = _clean_up(observed)
    stubborn = observed.failure is not None and observed.failure.attempts >= CLEANUP_ATTEMPTS
    if cleanup is not None and not stubborn:
        return cleanup
    return Enter(state=state, message=message, reason=reason)


def _after_the_end(observed: Observed, desired: Desired, now_ms: int) -> Step:
    """A task that has ended keeps nothing; its record goes when it is to be removed."""
    stop = _stop(observed, desired, now_ms)
    if stop is not None:
        return stop
    cleanup = _clean_up(observed)
    if cleanup is not None:
        return cleanup
    if desired.gone or desired.state == pb.DESIRED_STATE_REMOVE:
        return Forget()
    return Wait(why="it has ended")


def _clean_up(observed: Observed) -> Step | None:
    if observed.life is not Life.NONE:
        return DeleteContainer()
    if observed.network_ready or families.every(observed.record):
        return DetachNetwork()
    if observed.record.root_id is not None:
        return FreeUsers()
    return None
