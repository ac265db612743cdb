"""What the leader makes of an agent's report on a task.

Reports come late, twice and out of order; states only rise, so an old report changes nothing.
"""

from controlplane.core import plan, preemption, said
from protos import states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb


def accept(task: pb.Task, node_id: str, node: pb.Node | None, report: wire.TaskReport) -> plan.Write | None:
    """The task with the reported status; None when the report has nothing new, or is not this agent's to make.

    `node`: the record of the node that says so, which may be gone.
    """
    before, after = task.status.state, report.status.state
    if task.node_id != node_id or states.is_terminal(before) or after < before:
        return None
    changed = plan.copy(task)
    changed.status.CopyFrom(said.without_foreign_addresses(said.bounded(report.status), node))
    if task.status.reason == preemption.REASON:  # the agent knows that it was told to stop, and not why
        changed.status.reason, changed.status.message = task.status.reason, task.status.message
    if not states.allowed(before, after, states.Owner.AGENT) or changed.status == task.status:
        return None
    changed.status.ClearField("refusals")
    return plan.Write(value=changed, why=f"{states.word(after)} {changed.status.message}".strip())
