"""What must hold of fenced tasks: no two containers of a slot run at a time, whatever happens to whom."""

from collections import Counter
from collections.abc import Collection, Mapping

from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.violation import Violation


class FenceRules:
    """Knows every fenced task that there ever was: its container may outlive its record."""

    def __init__(self) -> None:
        self._fenced: set[str] = set()

    def note(self, after: kinds.StoredObject | None) -> None:
        """Called with each change."""
        if isinstance(after, pb.Task) and after.fence:
            self._fenced.add(after.meta.id)

    def check(self, running: Mapping[str, Collection[str]]) -> None:
        """Called again and again with the tasks that have containers, by node id. Raises Violation."""
        there = [task_id for names in running.values() for task_id in sorted(set(names)) if task_id in self._fenced]
        slots = Counter(task_id.rsplit("-", 1)[0] for task_id in there)
        for slot, number in slots.items():
            if number > 1:
                names = [task_id for task_id in there if task_id.startswith(f"{slot}-")]
                raise Violation("never two", f"{' and '.join(names)} run at the same time, and are fenced")
