"""Where a service stands on its way to what was asked for. Pure: objects in, words out.

Done is what the leader says (`settled`) of the generation that was asked for, or of a later one. What has just come
back from a bad end has to last for a moment first: between its crashes, a crash loop looks fine. A service that fails
is not given up: another node may join, an image may be imported. Only what can never come is a failure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from orchctl import amounts, phrases
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

MAX_TROUBLES = 5
STEADY_MS = 5000
"""What came back from a bad end is believed after this time."""


class Phase(Enum):
    WAITING = "waiting"
    DONE = "done"
    IMPOSSIBLE = "impossible"


def identity(value: kinds.StoredObject) -> str:
    """Tells an object from another one of the same kind, even of the same name at another time."""
    return value.meta.id or value.meta.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is waited for: this generation (or a later one) of this very object."""

    kind: str
    namespace: str
    name: str
    id: str
    generation: int

    @classmethod
    def of(cls, value: kinds.StoredObject) -> "Target":
        """The object as it is now."""
        meta, kind = value.meta, kinds.of(value)
        return cls(
            kind=kind.name,
            namespace=meta.namespace if kind.namespaced else "",
            name=meta.name or meta.id,
            id=identity(value),
            generation=meta.generation,
        )

    @property
    def label(self) -> str:
        """`service/hello`; the namespace only where it is not the usual one."""
        place = f" in {self.namespace}" if self.namespace not in {"", "default"} else ""
        return f"{self.kind}/{self.name}{place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`summary` is short; `troubles` tell what is in the way, most frequent first."""

    phase: Phase
    summary: str
    ready: int = 0
    asked: int = 0
    troubles: tuple[str, ...] = ()


GONE = Progress(phase=Phase.IMPOSSIBLE, summary="it was deleted meanwhile")


def progress(target: Target, service: pb.Service | None, tasks: Sequence[pb.Task], now_ms: int) -> Progress:
    """Where the service stands. `service` is None when it does not exist."""
    early = unjudged(target, service)
    if service is None or early is not None:
        return early or GONE
    asked, ready = phrases.asked(service), service.status.ready
    unsteady = sum(_is_unsteady(slot, now_ms) for slot in _slots(tasks))
    phase = _stop(tasks) if service.spec.stopped else _phase(service, steady=not unsteady)
    done = phase is Phase.DONE
    return Progress(
        phase=phase,
        summary=_summary(service, asked, tasks, unsteady),
        ready=ready,
        asked=asked,
        troubles=() if done else troubles(tasks),
    )


def unjudged(target: Target, service: pb.Service | None) -> Progress | None:
    """Where it stands when its status says nothing of what was asked for; None when that tells."""
    if service is None or identity(service) != target.id:
        return GONE
    if service.meta.deleted_at:
        return Progress(phase=Phase.IMPOSSIBLE, summary="it is being deleted")
    if service.meta.generation < target.generation or not phrases.is_observed(service):
        asked, ready = phrases.asked(service), service.status.ready
        return Progress(phase=Phase.WAITING, summary="waiting for the leader", ready=ready, asked=asked)
    return None


def _stop(tasks: Sequence[pb.Task]) -> Phase:
    """Of a service that is to run nothing. Whatever its last rollout came to, that is done once all have ended."""
    return Phase.DONE if all(states.is_terminal(task.status.state) for task in tasks) else Phase.WAITING


def _phase(service: pb.Service, *, steady: bool) -> Phase:
    """A rollout that was stopped goes on only when somebody says so; one that waits for a word has done its part."""
    match service.status.rollout.state:
        case pb.ROLLOUT_STATE_ROLLED_BACK:
            return Phase.IMPOSSIBLE
        case pb.ROLLOUT_STATE_PAUSED if not service.status.settled:
            return Phase.IMPOSSIBLE
        case pb.ROLLOUT_STATE_FAILED if service.status.rollout.stable_revision_id:
            return Phase.IMPOSSIBLE  # an update that went on to its end; a first revision may still come up
        case pb.ROLLOUT_STATE_WAITING:
            return Phase.DONE
        case pb.ROLLOUT_STATE_ROLLING if service.status.settled and service.status.rollout.stable_revision_id:
            return Phase.WAITING  # what was replaced is watched for a moment; the first revision has replaced nothing
        case _:
            return Phase.DONE if service.status.settled and steady else Phase.WAITING


def going(*, is_there: bool, tasks: Sequence[pb.Task]) -> Progress:
    """Where an object stands on its way out. It goes after its tasks."""
    if not is_there:
        return Progress(phase=Phase.DONE, summary="deleted")
    left = sum(not states.is_terminal(task.status.state) for task in tasks)
    summary = f"{amounts.count(left, 'task')} to stop" if left else "being deleted"
    return Progress(phase=Phase.WAITING, summary=summary, ready=len(tasks) - left, asked=len(tasks))


def _summary(service: pb.Service, asked: int, tasks: Sequence[pb.Task], unsteady: int) -> str:
    """`2 of 3 ready, 1 of 3 updated, 1 stopping`: what does not go without saying."""
    status = service.status
    stopping = sum(phrases.task_state(task) == "STOPPING" for task in tasks)
    if service.spec.stopped:
        # While it is needed by others, its status says so.
        at_work = status.message if any(not states.is_terminal(task.status.state) for task in tasks) else "stopped"
        return f"{stopping} stopping" if stopping else at_work
    parts = [f"{min(status.ready, asked)} of {asked} ready"]
    if status.updated < min(status.ready, asked) and not status.settled:
        parts.append(f"{status.updated} of {asked} updated")
    if stopping:
        parts.append(f"{stopping} stopping")
    if unsteady:
        parts.append(f"{unsteady} just restarted")
    return "; ".join(filter(None, [", ".join(parts), _rollout(service)]))


def _rollout(service: pb.Service) -> str:
    """What does not go without saying of the rollout."""
    rollout = service.status.rollout
    if rollout.state == pb.ROLLOUT_STATE_ROLLING:
        return "watched for a moment" if service.status.settled and rollout.stable_revision_id else ""
    return "" if rollout.state == pb.ROLLOUT_STATE_COMPLETED else rollout.message


def troubles(tasks: Iterable[pb.Task]) -> tuple[str, ...]:
    """What keeps slots from being ready, equal things counted together.

    Three tasks that no node takes for the same reason are one line: `3 tasks PENDING: no node takes it: …`.
    """
    counted = Counter(trouble for slot in _slots(tasks) if (trouble := _trouble_of_slot(slot)))
    lines = [f"{amounts.count(number, 'task')} {trouble}" for trouble, number in counted.most_common(MAX_TROUBLES)]
    hidden = len(counted) - len(lines)
    return (*lines, f"and {amounts.count(hidden, 'other reason')}") if hidden > 0 else tuple(lines)


def _slots(tasks: Iterable[pb.Task]) -> list[list[pb.Task]]:
    """The tasks of each slot, the newest last. Those that are told to stop for no fault of their own do not count."""
    by_slot: dict[tuple[int, str], list[pb.Task]] = {}
    for task in sorted(tasks, key=lambda task: (task.slot, task.meta.created_at, task.meta.name)):
        if task.desired_state < pb.DESIRED_STATE_SHUTDOWN or _ended_badly(task):
            by_slot.setdefault((task.slot, task.target_node_id), []).append(task)
    return list(by_slot.values())


def _trouble_of_slot(tasks: Sequence[pb.Task]) -> str:
    """What is wrong with the newest task; while that only needs time, how the one before it ended."""
    newest = tasks[-1]
    if _is_ready(newest):
        return ""
    before = [task for task in tasks[-2:-1] if _ended_badly(task)]
    return next(filter(None, map(_trouble, (newest, *before))), "")


def _trouble(task: pb.Task) -> str:
    """State and reason of a task that is not ready; nothing of one that simply needs time."""
    why = phrases.task_message(task)
    if not why and task.status.HasField("exit_code"):
        why = f"ended with exit code {phrases.exit_code(task)}"
    return f"{phrases.task_state(task)}: {why}" if why else ""


def _is_unsteady(tasks: Sequence[pb.Task], now_ms: int) -> bool:
    """Whether the slot's task is up again only since a moment ago."""
    *before, newest = tasks
    failed_before = any(task.status.state == states.FAILED for task in before[-1:])
    up_ms = now_ms - newest.status.started_at
    return _is_ready(newest) and (newest.status.restarts > 0 or failed_before) and 0 <= up_ms < STEADY_MS


def _is_ready(task: pb.Task) -> bool:
    return task.status.ready and task.status.state == states.RUNNING


def _ended_badly(task: pb.Task) -> bool:
    return task.status.state in {states.FAILED, states.REJECTED, states.ORPHANED}
