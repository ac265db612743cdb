"""The containers around the main one: what has to run before it, and what runs beside it.

Two rules: an init container that has ended well is never run again in its task; and a sidecar is the business of
nobody else: it is started again for as long as the task lives, whatever becomes of it.

    init 1 ─ends well─► init 2 ─ends well─► sidecar 1 ─ready─► sidecar 2 ─ready─► main
"""

from agent.core.actions import DeleteContainer, Step, Wait
from agent.core.observed import Desired, Life, Observed
from agent.core.stopping import stop_one
from protos import states


def init_in_turn(observed: Observed, desired: Desired) -> str:
    """The init container that has to end well next; empty when all of them have, or the main one has been started."""
    if observed.has_run:
        return ""
    for one in desired.template.init:
        sight = observed.of(one.name)
        if sight.record.ending != states.COMPLETE or sight.life is not Life.NONE:
            return one.name
    return ""


def has_given_up(observed: Observed) -> str:
    """The init container after whose end the restart policy wants no other; empty when there is none."""
    return next((name for name, sight in observed.others.items() if sight.record.ending == states.FAILED), "")


def sidecar_in_turn(observed: Observed, desired: Desired) -> str:
    """The first sidecar that is not up yet; empty when the main container may be started."""
    if observed.has_run:
        return ""
    return next((one.name for one in desired.template.sidecars if not observed.of(one.name).is_ready), "")


def is_ready(observed: Observed, desired: Desired) -> bool:
    """Whether every sidecar does its work."""
    return all(observed.of(one.name).is_ready for one in desired.template.sidecars)


def to_start(observed: Observed, desired: Desired, now_ms: int) -> tuple[str, ...]:
    """The containers that are to be started now, if everything that they need is there. The first one comes first.

    While a sidecar has not been up yet, nothing behind it is started; once the main one has been, each is on its own.
    """
    init = init_in_turn(observed, desired)
    order = [init] if init else _after_init(observed, desired)
    return tuple(name for name in order if _is_due(observed, name, now_ms))


def _after_init(observed: Observed, desired: Desired) -> list[str]:
    last = sidecar_in_turn(observed, desired)
    names = [one.name for one in desired.template.sidecars]
    return names[: names.index(last) + 1] if last else [*names, ""]


def _is_due(observed: Observed, name: str, now_ms: int) -> bool:
    sight = observed.of(name)
    return sight.life is Life.NONE and sight.record.restart_at <= now_ms


def next_due(observed: Observed, now_ms: int) -> int:
    """When the next container may be started again; 0 when none has to wait for that."""
    moments = (one.record.restart_at for _, one in observed.each if one.life is Life.NONE)
    return min((at for at in moments if at > now_ms), default=0)


def tend(observed: Observed, desired: Desired, now_ms: int) -> Step | None:
    """What has ended makes way, and what is unhealthy is stopped. A Wait when there is only that to wait for."""
    waiting: Step | None = None
    for name, sight in observed.each:
        if sight.life is Life.STOPPED:
            return DeleteContainer(container=name)
        step = stop_one(observed, desired, name, now_ms) if sight.record.unhealthy else None
        if step is not None and not isinstance(step, Wait):
            return step
        waiting = sooner(waiting, step)
    return waiting


def sooner(one: Step | None, other: Step | None) -> Step | None:
    """The one of two waits that ends first. A wait without a moment ends last."""
    if not isinstance(one, Wait) or not isinstance(other, Wait):
        return one or other
    return min(one, other, key=lambda wait: wait.until or float("inf"))


def why_waiting(observed: Observed, desired: Desired) -> str:
    """What stands between the task and its main container, in words for people; empty when nothing does."""
    init = init_in_turn(observed, desired)
    if init:
        names = [one.name for one in desired.template.init]
        return f"init container {init} ({names.index(init) + 1} of {len(names)}) runs"
    sidecar = sidecar_in_turn(observed, desired)
    return f"sidecar {sidecar} is not ready yet" if sidecar else ""
