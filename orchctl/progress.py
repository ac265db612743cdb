"""Where a service stands on its way to what was asked for. Pure: objects in, words out.

Done is what the leader says (`settled`) of the generation that was asked for, or of a later one. A service that fails
is not given up: another node may join, an image may be imported. Only what can never come is a failure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from orchctl import phrases
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

MAX_TROUBLES = 5


class Phase(Enum):
    WAITING = "waiting"
    DONE = "done"
    IMPOSSIBLE = "impossible"


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
            id=meta.id,
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


def progress(target: Target, service: pb.Service | None, tasks: Sequence[pb.Task]) -> Progress:
    """Where the service stands. `service` is None when it does not exist."""
    if service is None or service.meta.id != target.id:
        return Progress(phase=Phase.IMPOSSIBLE, summary="it was deleted meanwhile")
    if service.meta.deleted_at:
        return Progress(phase=Phase.IMPOSSIBLE, summary="it is being deleted")
    asked, ready = phrases.asked(service), service.status.ready
    if service.meta.generation < target.generation or not phrases.is_observed(service):
        return Progress(phase=Phase.WAITING, summary="waiting for the leader", ready=ready, asked=asked)
    done = service.status.settled
    return Progress(
        phase=Phase.DONE if done else Phase.WAITING,
        summary=_summary(service, asked, tasks),
        ready=ready,
        asked=asked,
        troubles=() if done else troubles(tasks),
    )


def going(*, is_there: bool, tasks: Sequence[pb.Task]) -> Progress:
    """Where an object stands on its way out. It goes after its tasks."""
    if not is_there:
        return Progress(phase=Phase.DONE, summary="deleted")
    left = sum(not states.is_terminal(task.status.state) for task in tasks)
    summary = f"{phrases.count(left, 'task')} to stop" if left else "being deleted"
    return Progress(phase=Phase.WAITING, summary=summary, ready=len(tasks) - left, asked=len(tasks))


def _summary(service: pb.Service, asked: int, tasks: Sequence[pb.Task]) -> str:
    """`2 of 3 ready, 1 of 3 updated, 1 stopping`: what does not go without saying."""
    status = service.status
    parts = [f"{min(status.ready, asked)} of {asked} ready"]
    if status.updated < min(status.ready, asked) and not status.settled:
        parts.append(f"{status.updated} of {asked} updated")
    if stopping := sum(phrases.task_state(task) == "STOPPING" for task in tasks):
        parts.append(f"{stopping} stopping")
    return ", ".join(parts)


def troubles(tasks: Iterable[pb.Task]) -> tuple[str, ...]:
    """What keeps tasks from being ready, equal things counted together.

    Three tasks that no node takes for the same reason are one line: `3 tasks PENDING: no node takes it: …`.
    """
    counted = Counter(trouble for task in _in_question(tasks) if (trouble := _trouble(task)))
    lines = [_line(state, why, number) for (state, why), number in counted.most_common(MAX_TROUBLES)]
    hidden = len(counted) - len(lines)
    return (*lines, f"and {phrases.count(hidden, 'other reason')}") if hidden > 0 else tuple(lines)


def _in_question(tasks: Iterable[pb.Task]) -> list[pb.Task]:
    """The newest task of each slot that is not ready; and the one before it, when that one ended badly."""
    by_slot: dict[int, list[pb.Task]] = {}
    for task in sorted(tasks, key=lambda task: (task.slot, task.meta.created_at, task.meta.name)):
        if not _told_to_stop(task):
            by_slot.setdefault(task.slot, []).append(task)
    chosen = []
    for *before, newest in by_slot.values():
        if not (newest.status.ready and newest.status.state == states.RUNNING):
            chosen += [task for task in before[-1:] if _ended_badly(task)]
            chosen.append(newest)
    return chosen


def _told_to_stop(task: pb.Task) -> bool:
    """Whether it is on its way out for no fault of its own."""
    return task.desired_state >= pb.DESIRED_STATE_SHUTDOWN and not _ended_badly(task)


def _ended_badly(task: pb.Task) -> bool:
    return task.status.state in {states.FAILED, states.REJECTED, states.ORPHANED}


def _trouble(task: pb.Task) -> tuple[str, str] | None:
    """State and reason of a task that is not ready; None for one that simply needs time."""
    details = [why] if (why := phrases.task_message(task)) else []
    if task.status.HasField("exit_code"):
        details.append(f"exit code {phrases.exit_code(task)}")
    if task.status.restarts:
        details.append(phrases.count(task.status.restarts, "restart"))
    return (phrases.task_state(task), ", ".join(details)) if details else None


def _line(state: str, why: str, number: int) -> str:
    return f"{phrases.count(number, 'task')} {state}: {why}"
