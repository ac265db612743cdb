"""What is reported of a task, computed from what there is of it and what is wanted."""

from agent.core import around
from agent.core.observed import Desired, Life, Observed, Sight, is_unwanted
from agent.core.record import ContainerRecord
from protos import states
from protos.orch.v1 import objects_pb2 as pb

Words = tuple[str, str]
"""A message and its reason."""

NOTHING: Words = ("", "")


def status_of(observed: Observed, desired: Desired) -> pb.TaskStatus:
    """The status that the leader stores and people see. A task that is to stop is not ready."""
    record = observed.record
    message, reason = _words(observed, desired)
    runs = record.state == states.RUNNING and not is_unwanted(desired)
    status = pb.TaskStatus(
        state=record.state,
        at=record.at,
        message=message,
        reason=reason,
        ready=runs and observed.is_ready and around.is_ready(observed, desired),
        restarts=record.restarts,
        address=record.address,
        address6=record.address6,
        started_at=record.started_at,
        first_run=record.first_run_ms,
        containers=[_of_one(name, observed.of(name)) for name in desired.others],
    )
    if record.root_id is not None:
        status.root_id = record.root_id
    if record.exit is not None:
        status.exit_code = record.exit.code
        status.oom_killed = record.exit.oom_killed
        status.finished_at = record.exit.finished_at
    return status


def _of_one(name: str, sight: Sight) -> pb.ContainerStatus:
    record, runs = sight.record, sight.life is Life.RUNNING
    status = pb.ContainerStatus(
        name=name, running=runs, ready=sight.is_ready, restarts=record.restarts, started_at=record.started_at
    )
    if record.exit is not None:
        status.exit_code = record.exit.code
    return status


def _words(observed: Observed, desired: Desired) -> Words:
    record, failure = observed.record, observed.failure
    if states.is_terminal(record.state):
        return record.message, record.reason
    if failure is not None:
        return failure.message, failure.reason
    if record.ending is not None:
        return record.why_ended
    if is_unwanted(desired) and observed.life is not Life.RUNNING:
        return "stopping", "Stopping"
    words = _of_main(observed) or _of_others(observed, desired)
    if words is not None:
        return words
    if record.state == states.READY and desired.state == pb.DESIRED_STATE_READY and desired.waits_for:
        return f"waits for {desired.waits_for}", "Held"
    return record.message, record.reason


def _of_main(observed: Observed) -> Words | None:
    record = observed.record
    if observed.life is not Life.RUNNING and _is_restarting(observed):
        return _restarting(record), record.unhealthy_reason if record.unhealthy else "Restarting"
    if record.unhealthy:
        return record.unhealthy, record.unhealthy_reason
    if observed.prepare_stop_at and not observed.stop_asked_at:
        return "its preStop hook runs", "Stopping"
    if observed.stop_asked_at:
        return "stopping", "Stopping"
    if record.leaving_since:
        return "draining connections", "Draining"
    return _not_ready(observed)


def _of_others(observed: Observed, desired: Desired) -> Words | None:
    """What is wrong with the containers around the main one, or which of them it waits for."""
    init = around.init_in_turn(observed, desired)
    if init and observed.record.state >= states.STARTING:
        trouble = _trouble(observed.of(init))
        named = around.why_waiting(observed, desired)
        return (f"{named.removesuffix(' runs')}: {trouble[0]}", trouble[1]) if trouble else (named, "Initializing")
    for one in desired.template.sidecars:
        trouble = _trouble(observed.of(one.name))
        if trouble is not None:
            return f"sidecar {one.name}: {trouble[0]}", trouble[1]
    waits = around.why_waiting(observed, desired) if observed.record.state >= states.STARTING else ""
    return (waits, "NotReady") if waits else None


def _trouble(sight: Sight) -> Words | None:
    record = sight.record
    if record.ending == states.FAILED:
        return record.why_ended
    if sight.life is not Life.RUNNING and record.exit is not None and record.ending is None:
        return _restarting(record), record.unhealthy_reason if record.unhealthy else "Restarting"
    if record.unhealthy:
        return record.unhealthy, record.unhealthy_reason
    return _not_ready(sight)


def _not_ready(sight: Sight) -> Words | None:
    if sight.life is Life.RUNNING and not sight.record.ready and sight.not_ready:
        return sight.not_ready, "NotReady"
    return None


def _is_restarting(observed: Observed) -> bool:
    """It had a container, or an attempt at one, and gets another."""
    state = observed.record.state
    return state == states.RUNNING or (state == states.STARTING and observed.record.exit is not None)


def _restarting(record: ContainerRecord) -> str:
    if record.exit is None:
        return "the container is started again: none was found on the node"
    if record.exit.message:
        return f"could not be started: {record.exit.message}; restart {record.restarts + 1} is next"
    if record.unhealthy:
        return f"{record.unhealthy}; restart {record.restarts + 1} is next"
    ended = record.exit
    why = ended.out_of_memory if ended.oom_killed else f"ended with exit code {ended.code}"
    return f"{why}; restart {record.restarts + 1} is next"
