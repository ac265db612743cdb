"""How containers come to their end: connections first, then the main container, then those beside it.

Two rules: a container that is to stop gets its preStop hook, its signal, its time and then SIGKILL, in this order; and
one is stopped only after every container that was started after it.
"""

from agent.core.actions import DeleteContainer, Drain, Kill, Leave, PrepareStop, Step, Stop, Wait
from agent.core.observed import Desired, Life, Observed
from protos import states

KILLED_WAIT_MS = 5_000
"""How long after SIGKILL the container may still be there before it is removed by force."""

LAST_MOMENTS_MS = 2_000
"""How long a container gets for the stop signal, when its preStop hook has taken all the time that there was."""

WITHDRAWAL_MS = 10_000
"""How long a task that is to stop waits at most until no node sends it new connections. A control plane that is away
holds it up no longer. It is more than a change of leaders takes: the new one has to tell the nodes what the old one may
not have told all of them. (A node that does not answer is the leader's affair, which waits less for it.)"""


def drain(observed: Observed, desired: Desired, now_ms: int) -> Step | None:
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


def stop_all(observed: Observed, desired: Desired, now_ms: int) -> Step | None:
    """The main container, then those beside it, the last one first; None when nothing runs."""
    known = [name for name in desired.others if name in observed.others]
    strays = [name for name in observed.others if name not in known]
    for name in ("", *reversed(known), *strays):
        step = stop_one(observed, desired, name, now_ms)
        if step is not None:
            return step
    return None


def stop_one(observed: Observed, desired: Desired, name: str, now_ms: int) -> Step | None:
    """The hook, the signal, the grace period, SIGKILL, and force; None when it does not run."""
    sight, grace_ms = observed.of(name), desired.template.stop_grace_period
    if sight.life is not Life.RUNNING:
        return None
    if not sight.stop_asked_at:
        return _hook(observed, desired, name, now_ms) or Stop(container=name)
    if not sight.kill_asked_at:
        deadline = sight.stop_asked_at + grace_ms
        if sight.prepare_stop_at:
            deadline = max(sight.prepare_stop_at + grace_ms, sight.stop_asked_at + LAST_MOMENTS_MS)
        return Wait(until=deadline, why="it was asked to stop") if now_ms < deadline else Kill(container=name)
    deadline = sight.kill_asked_at + KILLED_WAIT_MS
    return Wait(until=deadline, why="it was killed") if now_ms < deadline else DeleteContainer(container=name)


def _hook(observed: Observed, desired: Desired, name: str, now_ms: int) -> Step | None:
    """The preStop hook; None when there is none, or its time is over."""
    sight = observed.of(name)
    if sight.stop_prepared or not desired.container(name).lifecycle.HasField("pre_stop"):
        return None
    if not sight.prepare_stop_at:
        return PrepareStop(container=name)
    grace_ms = desired.template.stop_grace_period
    if _lasts(sight.prepare_stop_at, grace_ms, now_ms):
        return Wait(until=sight.prepare_stop_at + grace_ms, why="its preStop hook runs")
    return None


def clean_up(observed: Observed) -> DeleteContainer | None:
    """What is left of containers; None when nothing is."""
    left = next((name for name, sight in observed.each if sight.life is not Life.NONE), None)
    return DeleteContainer(container=left) if left is not None else None
