"""What is reported of a task, computed from what there is of it."""

from agent.core.record import Record
from agent.core.steps import Life, Observed
from protos import states
from protos.orch.v1 import objects_pb2 as pb


def status_of(observed: Observed, *, unwanted: bool = False) -> pb.TaskStatus:
    """The status that the leader stores and people see. A task that is to stop is `unwanted`, and not ready."""
    record = observed.record
    message, reason = _words(observed)
    runs = observed.life is Life.RUNNING and record.state == states.RUNNING
    status = pb.TaskStatus(
        state=record.state,
        at=record.at,
        message=message,
        reason=reason,
        ready=runs and record.ready and not record.unhealthy and not unwanted,
        restarts=record.restarts,
        address=record.address,
        started_at=record.started_at,
        first_run=record.first_run_ms,
    )
    if record.root_id is not None:
        status.root_id = record.root_id
    if record.exit is not None:
        status.exit_code = record.exit.code
        status.oom_killed = record.exit.oom_killed
        status.finished_at = record.exit.finished_at
    return status


def _words(observed: Observed) -> tuple[str, str]:
    record, failure = observed.record, observed.failure
    if states.is_terminal(record.state):
        return record.message, record.reason
    if failure is not None:
        return failure.message, failure.reason
    if record.ending is not None:
        return record.why_ended
    if observed.life is not Life.RUNNING and _is_restarting(record):
        return _restarting(record), "ProbeFailed" if record.unhealthy else "Restarting"
    if record.unhealthy:
        return record.unhealthy, "ProbeFailed"
    if observed.stop_asked_at:
        return "stopping", "Stopping"
    if record.leaving_since:
        return "draining connections", "Draining"
    if observed.life is Life.RUNNING and not record.ready and observed.not_ready:
        return observed.not_ready, "NotReady"
    return record.message, record.reason


def _is_restarting(record: Record) -> bool:
    """It had a container, or an attempt at one, and gets another."""
    return record.state == states.RUNNING or (record.state == states.STARTING and record.exit is not None)


def _restarting(record: Record) -> str:
    if record.exit is None:
        return "the container is started again: none was found on the node"
    if record.exit.message:
        return f"could not be started: {record.exit.message}; restart {record.restarts + 1} is next"
    if record.unhealthy:
        return f"{record.unhealthy}; restart {record.restarts + 1} is next"
    ended = record.exit
    why = ended.out_of_memory if ended.oom_killed else f"ended with exit code {ended.code}"
    return f"{why}; restart {record.restarts + 1} is next"
