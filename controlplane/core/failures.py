"""Where tasks of a revision have failed lately: it is tried elsewhere first.

The rule: a failure is forgotten after a while. A node that was mended has to get work again, even while nobody rolls
anything out and the records of its failures are kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from controlplane.core import tasks
from protos.orch.v1 import objects_pb2 as pb

LATELY_MS = 300_000
"""So long a failure counts: five times the longest pause before a slot is filled again (`slots.LONGEST_DELAY_MS`), so
that what fails everywhere is tried on a handful of nodes before it comes back to the first. SwarmKit takes as long.
"""

_NONE: Mapping[int, int] = Counter()


class Failures:
    """What is remembered now of the tasks on some nodes."""

    def __init__(self, row_of: Mapping[str, int], placed: Iterable[pb.Task], now_ms: int) -> None:
        """`row_of`: the rows of the nodes that count, by their ids."""
        self._on: dict[str, Counter[int]] = {}
        self._until: dict[str, int] = {}
        for task in placed:
            if not tasks.failed(task) or (row := row_of.get(task.node_id)) is None:
                continue
            failed_at = _failed_at(task)
            # One of which a clock says that it is yet to come is as far away, and does not count for ever either.
            if abs(now_ms - failed_at) < LATELY_MS:
                self._on.setdefault(task.revision_id, Counter())[row] += 1
                until = failed_at + LATELY_MS
                self._until[task.revision_id] = min(self._until.get(task.revision_id, until), until)

    def of(self, revision_id: str) -> Mapping[int, int]:
        """How many tasks of the revision failed on which row."""
        return self._on.get(revision_id, _NONE)

    def forgotten_at(self, revision_id: str) -> int | None:
        """When the first of its failures will count no more; None when there is none."""
        return self._until.get(revision_id)


def _failed_at(task: pb.Task) -> int:
    """The agent says when that was; its clock may be behind, but no task failed before it was made."""
    return max(task.status.at, task.meta.created_at)
