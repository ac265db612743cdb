"""Decides what people may do to a running service: pause, resume, promote, abort and undo its rollout; restart, stop
and start it.

The rule: each of these changes the spec and nothing else; the leader then does what the spec says. A wish that makes no
sense as the service stands is refused, with what can be done instead.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from controlplane.core import apply, plan, revisions, rollout
from controlplane.core import request_errors as errors
from protos import kinds
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for. `known`: the service's revisions; `revision`: the number for `undo`, 0 for the one before."""

    known: Collection[pb.Revision] = ()
    revision: int = 0
    asked_by: str = ""
    now_ms: int


def change(service: pb.Service, action: api.RolloutAction.ValueType, wish: Wish) -> tuple[pb.Service, str]:
    """The service as it should be stored, and in words what was done to it."""
    if service.meta.deleted_at:
        raise errors.NotNow(f"{kinds.label(service)} is being deleted")
    act = _ACTIONS.get(action)
    if act is None:
        raise errors.Invalid("the request says nothing that can be done to a rollout")
    changed = plan.copy(service)
    said = act(changed, wish)
    stamped = apply.changed(service, changed, now_ms=wish.now_ms)
    assert isinstance(stamped, pb.Service), "a change keeps the kind"
    return stamped, said


def _pause(service: pb.Service, wish: Wish) -> str:  # noqa: ARG001 - every action gets the same
    if service.spec.rollout.paused:
        raise errors.NotNow(f"the rollouts of {kinds.label(service)} are paused already", hint=_resume_hint(service))
    service.spec.rollout.paused = True
    return "paused: nothing is replaced until it is resumed"


def _resume(service: pb.Service, wish: Wish) -> str:
    state = service.status.rollout.state
    if not service.spec.rollout.paused and state not in rollout.STOPPED:
        hint = "it was rolled back; apply another template" if state in rollout.BACKWARDS else _status_hint(service)
        raise errors.NotNow(f"no rollout of {kinds.label(service)} is paused", hint=hint)
    service.spec.rollout.paused = False
    service.spec.rollout.resumed_at = max(wish.now_ms, service.spec.rollout.resumed_at + 1)
    return "resumed"


def _promote(service: pb.Service, wish: Wish) -> str:  # noqa: ARG001
    status = _observed(service)
    if status.state != rollout.WAITING:
        raise errors.NotNow(f"no canary of {kinds.label(service)} waits to be promoted", hint=_status_hint(service))
    service.spec.rollout.promoted_revision_id = status.revision_id
    return "promoted: the other tasks are replaced, too"


def _abort(service: pb.Service, wish: Wish) -> str:  # noqa: ARG001
    status = _observed(service)
    if status.state in rollout.BACKWARDS:
        raise errors.NotNow(
            f"the rollout of {kinds.label(service)} was turned back already", hint=_status_hint(service)
        )
    if status.state not in rollout.UNDECIDED:
        hint = f"`orchctl rollout undo {service.meta.name}` goes back to the revision before"
        raise errors.NotNow(f"no rollout of {kinds.label(service)} is going on", hint=hint)
    if not rollout.can_go_back(status):
        hint = "apply a template that works"
        raise errors.NotNow(f"no other revision of {kinds.label(service)} is known to be good", hint=hint)
    service.spec.rollout.aborted_revision_id = status.revision_id
    return "aborted: the last good revision takes its place again"


def _undo(service: pb.Service, wish: Wish) -> str:
    chosen = _chosen(service, wish)
    _ask_for(service.spec, chosen)
    apply.ask_anew(service.spec, wish.asked_by)
    return f"goes back to revision {chosen.number}"


def _ask_for(spec: pb.ServiceSpec, revision: pb.Revision) -> None:
    """What `revisions.existing` finds it by."""
    spec.template.CopyFrom(revision.written)
    spec.restarted_at = revision.restarted_at
    spec.ClearField("images")
    spec.images.update(revision.images)


def _chosen(service: pb.Service, wish: Wish) -> pb.Revision:
    """The revision that is named; else the last good one, or before that the one that was rolled out before."""
    now = revisions.existing(service.spec, wish.known)
    others = sorted((one for one in wish.known if one is not now), key=revisions.order)
    hint = f"`orchctl rollout history {service.meta.name}` lists those that are kept"
    if not wish.revision:
        stable = next((one for one in others if one.meta.id == service.status.rollout.stable_revision_id), None)
        if not others:
            raise errors.NotNow(f"{kinds.label(service)} has no revision to go back to", hint=hint)
        return stable or others[-1]
    if now is not None and wish.revision == now.number:
        raise errors.NotNow(f"{kinds.label(service)} asks for revision {wish.revision} already", hint=hint)
    found = next((one for one in others if one.number == wish.revision), None)
    if found is None:
        raise errors.Unknown(f"{kinds.label(service)} has no revision {wish.revision}", hint=hint)
    return found


def _restart(service: pb.Service, wish: Wish) -> str:
    if service.spec.stopped:
        hint = f"`orchctl start {service.meta.name}`"
        raise errors.NotNow(f"{kinds.label(service)} is stopped: it has no tasks to restart", hint=hint)
    if service.spec.rollout.paused:
        text = f"the rollouts of {kinds.label(service)} are paused: none of its tasks would be replaced"
        raise errors.NotNow(text, hint=_resume_hint(service))
    now = revisions.existing(service.spec, wish.known)
    runs, said = _in_force(service, now, wish.known), "restarts: its tasks are replaced by equal ones"
    if runs is not None and runs is not now:
        _ask_for(service.spec, runs)
        said += f" of revision {runs.number}, which the spec asks for again"
    service.spec.restarted_at = max(wish.now_ms, service.spec.restarted_at + 1)
    apply.ask_anew(service.spec, wish.asked_by)
    return said


def _in_force(service: pb.Service, now: pb.Revision | None, known: Collection[pb.Revision]) -> pb.Revision | None:
    """The revision that tasks are to have: the one that the spec asks for (`now`), or the good one before it when that
    was refused. Refuses while two stand side by side, and only people can say which it is to be.
    """
    status = service.status.rollout
    if now is None or now.meta.id != status.revision_id:
        return now  # the leader has not looked at it, so that nothing has become of it yet
    if rollout.is_refused(status, service.spec.rollout):
        return next(one for one in known if one.meta.id == status.stable_revision_id)
    if status.state in {rollout.PAUSED, rollout.WAITING}:
        forth = "promote" if status.state == rollout.WAITING else "resume"
        text = f"{kinds.label(service)} is between two revisions: {status.message}"
        raise errors.NotNow(
            text, hint=f"`orchctl rollout {forth} {service.meta.name}` or `abort` decides which it is to be"
        )
    return now


def _stop(service: pb.Service, wish: Wish) -> str:  # noqa: ARG001
    if service.spec.stopped:
        hint = f"`orchctl start {service.meta.name}`"
        raise errors.NotNow(f"{kinds.label(service)} is stopped already", hint=hint)
    service.spec.stopped = True
    return "stopped: it keeps its number of replicas and runs none"


def _start(service: pb.Service, wish: Wish) -> str:  # noqa: ARG001
    if not service.spec.stopped:
        raise errors.NotNow(f"{kinds.label(service)} is not stopped", hint=_status_hint(service))
    service.spec.stopped = False
    return "started"


def _observed(service: pb.Service) -> pb.RolloutStatus:
    """The rollout, when its status tells of the present spec."""
    if service.status.observed_generation != service.meta.generation:
        text = f"{kinds.label(service)} was changed a moment ago, and its rollout has not begun"
        raise errors.NotNow(text, hint="try again in a moment")
    return service.status.rollout


def _resume_hint(service: pb.Service) -> str:
    return f"`orchctl rollout resume {service.meta.name}` lets them go on"


def _status_hint(service: pb.Service) -> str:
    return f"`orchctl rollout status {service.meta.name}` tells where it stands"


_ACTIONS: Mapping["api.RolloutAction.ValueType", Callable[[pb.Service, Wish], str]] = {
    api.ROLLOUT_ACTION_PAUSE: _pause,
    api.ROLLOUT_ACTION_RESUME: _resume,
    api.ROLLOUT_ACTION_PROMOTE: _promote,
    api.ROLLOUT_ACTION_ABORT: _abort,
    api.ROLLOUT_ACTION_UNDO: _undo,
    api.ROLLOUT_ACTION_RESTART: _restart,
    api.ROLLOUT_ACTION_STOP: _stop,
    api.ROLLOUT_ACTION_START: _start,
}
