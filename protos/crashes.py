"""When a task counts as one that crashes again and again, for the leader's sentences and for what people see.

The rule: one crash may happen to anybody. From the second in a row on, whether the agent restarted the container in
place or the leader made another task, it is a loop, as long as it does not work.
"""

from protos import states
from protos.orch.v1 import objects_pb2 as pb

LOOP_FROM = 2
"""So many crashes in a row."""


def is_looping(task: pb.Task) -> bool:
    """It has crashed again and again, and does not work at the moment."""
    ended_well = task.status.state in {states.COMPLETE, states.SHUTDOWN, states.ORPHANED}
    if ended_well or task.status.ready or task.desired_state >= pb.DESIRED_STATE_SHUTDOWN:
        return False
    ended_badly = task.status.state == states.FAILED
    return task.status.restarts + task.failures + ended_badly >= LOOP_FROM
