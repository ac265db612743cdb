"""What `orchctl wait --for` understands: conditions of objects, and how far each object is from them. Pure.

ready       service: as many tasks are ready as are asked for; task and node: it is ready
drained     node: it is drained, and has no tasks any more
settled     service: everything is as asked, and nothing is in progress
rollout     service: every task is of the newest revision, and ready
deleted     it is gone
PATH=WORD   a field says this, such as status.ready=3
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchctl import fieldpaths, phrases, progress
from orchctl.errors import InvalidInput
from orchctl.progress import Phase, Progress, Target
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

DELETED = "deleted"
WORDS = ("ready", "settled", "rollout", "drained", DELETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """An object and its tasks as they stand. `value` is None when it is not there."""

    value: kinds.StoredObject | None
    tasks: Sequence[pb.Task]
    now_ms: int


Condition = Callable[[Target, Now], Progress]


def parse(text: str, kind: kinds.Kind) -> Condition:
    """The condition that a text asks for. InvalidInput when objects of this kind have none of it."""
    path, sign, word = text.partition("=")
    if sign:
        return _says(fieldpaths.parse(kind, path), word)
    if text == DELETED:
        return _deleted
    if text == "drained" and kind.message is pb.Node:
        return drained
    if text == "ready" and kind.message in {pb.Task, pb.Node}:
        return _ready
    of_service: dict[str, Condition] = {"ready": _service_ready, "settled": _settled, "rollout": _rolled_out}
    if text not in WORDS:
        raise InvalidInput(f"--for: no condition {text!r}", hint=f"write {', '.join(WORDS)} or a field=value")
    if kind.message is not pb.Service or text not in of_service:
        raise InvalidInput(f"--for: a {kind.name} is never {text}", hint="wait for a field, such as status.message=…")
    return of_service[text]


def _settled(target: Target, now: Now) -> Progress:
    return progress.progress(target, _service(now), now.tasks, now.now_ms)


def _service_ready(target: Target, now: Now) -> Progress:
    """So many are ready as are asked for, whatever a rollout does meanwhile."""
    service, stand = _service(now), _settled(target, now)
    if service is None or progress.unjudged(target, service):
        return stand
    if service.status.ready >= phrases.asked(service):
        return replace(stand, phase=Phase.DONE, troubles=())
    return replace(stand, phase=Phase.WAITING)


def _rolled_out(target: Target, now: Now) -> Progress:
    """Settled, and every task replaced: a canary that waits for a word has not got there."""
    service, stand = _service(now), _settled(target, now)
    if service is None or stand.phase is not Phase.DONE or service.status.updated >= phrases.asked(service):
        return stand
    return replace(stand, phase=Phase.WAITING, troubles=progress.troubles(now.tasks))


def _deleted(_target: Target, now: Now) -> Progress:
    return progress.going(is_there=now.value is not None, tasks=now.tasks)


def _ready(_target: Target, now: Now) -> Progress:
    match now.value:
        case pb.Task() as task if states.is_terminal(task.status.state):
            return Progress(phase=Phase.IMPOSSIBLE, summary=f"it is {phrases.task_state(task)}")
        case pb.Task() as task:
            return _stand(met=task.status.ready, summary=phrases.task_state(task))
        case pb.Node() as node:
            return _stand(met=node.status.state == pb.NODE_STATE_READY, summary=phrases.node_state(node))
        case _:
            return progress.GONE


def _says(path: fieldpaths.FieldPath, wanted: str) -> Condition:
    def stand(_target: Target, now: Now) -> Progress:
        if now.value is None:
            return progress.GONE
        said = path.words(now.value)
        met = said == wanted or (said == "" and wanted in path.nothing)
        return _stand(met=met, summary=f"{path.text} is {said or 'not set'}")

    return stand


def drained(target: Target, now: Now) -> Progress:
    """A node that is to be drained has no tasks any more. What the leader says of an older wish does not count."""
    node = now.value
    if not isinstance(node, pb.Node):
        return progress.GONE
    if node.spec.availability != pb.AVAILABILITY_DRAIN:
        return Progress(phase=Phase.IMPOSSIBLE, summary="somebody has made it take tasks again")
    told = node.status.drain
    if not node.status.HasField("drain") or told.observed_generation < target.generation:
        return Progress(phase=Phase.WAITING, summary="waiting for the leader")
    return _stand(met=not told.left, summary=told.message)


def _stand(*, met: bool, summary: str) -> Progress:
    return Progress(phase=Phase.DONE if met else Phase.WAITING, summary=summary)


def _service(now: Now) -> pb.Service | None:
    return now.value if isinstance(now.value, pb.Service) else None
