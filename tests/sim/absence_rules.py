"""What must hold while an agent is away that has said that it comes back: nobody takes its tasks before its time.

Fenced tasks are left out: their monitors kill them, whether an agent comes back or not.
"""

from collections.abc import Iterable

from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.violation import Violation
from tests.support import fake_agent

WAITED = "the announced are waited for"
LATE = "the late are lost"


class AbsenceRules:
    """Follows every commit.

    Whether the time has passed is the leader's to say, so it is judged by the clock that was furthest ahead so far.
    """

    def __init__(self) -> None:
        self._ahead_ms = 0
        self._expected_by: dict[str, int] = {}
        """By node id, from when it stands in the node's record until the agent is back; whatever else is said of it."""

    def note_clock(self, skew_ms: int) -> None:
        """The clock of a control plane is so far ahead now."""
        self._ahead_ms = max(self._ahead_ms, skew_ms)

    def check(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Called with each change. Raises Violation."""
        match after or before:
            case pb.Node() as node:
                self._note_node(node, gone=after is None)
            case pb.Task() as task if after is not None and task.status.state == states.ORPHANED and not task.fence:
                was_alive = isinstance(before, pb.Task) and not states.is_terminal(before.status.state)
                early_ms = self._early_ms(task.node_id) if was_alive else 0
                if early_ms > 0:
                    text = f"task {task.meta.id} was given up {early_ms} ms before the agent of its node is to be back"
                    raise Violation(WAITED, text)
            case _:
                pass

    def _note_node(self, node: pb.Node, *, gone: bool) -> None:
        if gone or node.status.state == pb.NODE_STATE_READY:
            self._expected_by.pop(node.meta.id, None)
        elif node.status.expected_by > node.status.since:
            self._expected_by[node.meta.id] = node.status.expected_by
        early_ms = self._early_ms(node.meta.id)
        if node.status.state == pb.NODE_STATE_DOWN and early_ms > 0:
            raise Violation(
                WAITED, f"node {node.meta.name} was called down {early_ms} ms before its agent is to be back"
            )

    def _early_ms(self, node_id: str) -> int:
        return self._expected_by.get(node_id, 0) - fake_agent.loop_ms() - self._ahead_ms


def alive(tasks: Iterable[pb.Task], node_id: str) -> frozenset[str]:
    """The ids of the tasks on a node that have not ended, and that nobody kills."""
    there = (task for task in tasks if task.node_id == node_id and not task.fence)
    return frozenset(task.meta.id for task in there if not states.is_terminal(task.status.state))


def taken(tasks: Iterable[pb.Task], of: frozenset[str]) -> list[str]:
    """Which of these tasks were given up."""
    return sorted(task.meta.id for task in tasks if task.meta.id in of and task.status.state == states.ORPHANED)
