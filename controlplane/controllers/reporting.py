"""Stores what agents report, for all sessions at once, and acknowledges it when it is stored.

A report waits here until the pen is free; by then there may be a hundred, and they go into one commit. Of several
reports on one task only the newest is kept, so what waits is bounded by the number of tasks.
"""

from collections.abc import Iterable

from controlplane.core import plan, reports
from controlplane.dispatcher.sessions import LiveSession
from controlplane.store.snapshots import Change, Snapshot
from protos import kinds
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

_TASK = kinds.of(pb.Task())


class Reporting:
    """Status reports on their way into the store. Keys are those of the tasks in the store."""

    name = "reporting"

    def __init__(self) -> None:
        self._reports: dict[str, tuple[str, wire.TaskReport]] = {}
        """By task key: the node that said it, and what it said."""
        self._planned: dict[str, tuple[str, wire.TaskReport]] = {}
        """What the plan that is being stored was made from."""
        self._unacknowledged: list[tuple[LiveSession, int, frozenset[str]]] = []

    def submit(self, session: LiveSession, report: wire.StatusReport) -> frozenset[str]:
        """Takes in a report; returns the keys to wake the loop with."""
        keys = set()
        for one in report.tasks:
            if not one.task_id or not one.namespace:
                continue
            key = kinds.key_of(_TASK, one.namespace, one.task_id)
            keys.add(key)
            self._reports[key] = (session.info.node_id, one)
        if keys:
            self._unacknowledged.append((session, report.sequence, frozenset(keys)))
        else:
            session.acknowledge(report.sequence)
        return frozenset(keys)

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - reports come from sessions
        return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - reports come from sessions
        return list(self._reports)

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - agents say when
        tasks = snapshot.all(pb.Task)
        changes = []
        for key in sorted(keys & self._reports.keys()):
            node_id, report = self._reports[key]
            task = tasks.get(key)
            if task is None:
                continue
            change = reports.accept(task, node_id, snapshot.get(pb.Node, node_id), report)
            if change is not None:
                changes.append(change)
        self._planned = {key: self._reports[key] for key in keys & self._reports.keys()}
        return plan.Plan(changes=tuple(changes))

    def done(self, keys: frozenset[str]) -> None:  # noqa: ARG002 - the last plan's
        """What was planned is stored: forget it, unless something newer came meanwhile, and acknowledge."""
        for key, planned in self._planned.items():
            if self._reports.get(key) is planned:
                del self._reports[key]
        self._planned = {}
        waiting = self._unacknowledged
        self._unacknowledged = []
        for session, sequence, needed in waiting:
            if needed.isdisjoint(self._reports):
                session.acknowledge(sequence)
            else:
                self._unacknowledged.append((session, sequence, needed))
