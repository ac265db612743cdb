"""Which tasks that are to stop have left the network everywhere, and telling their nodes.

`core/withdrawal.py` decides; here is what it decides from: what the leader learned when, and what the sessions say that
their nodes have applied. It is in memory only, and ends with the leadership.
"""

import asyncio
from collections.abc import Callable, Iterable

from controlplane.core import withdrawal
from controlplane.core.endpoint_table import Table
from controlplane.dispatcher.sessions import Sessions
from controlplane.store.snapshots import Change, Snapshot
from protos import states
from protos.orch.v1 import objects_pb2 as pb


class Withdrawals:
    """Run `run` in a task group. `table` has to know of a change before `notice` is told of it."""

    def __init__(self, table: Table, sessions: Sessions, snapshot: Callable[[], Snapshot]) -> None:
        self._table = table
        self._sessions = sessions
        self._snapshot = snapshot
        self._leaving: dict[str, withdrawal.Leaving] = {}
        self._withdrawn: dict[str, set[str]] = {}
        """By node id."""
        self._node_of: dict[str, str] = {}
        """Of tasks in either."""
        self._away_since: dict[str, int] = {}
        """Nodes that are DISCONNECTED, and since when, as far as this leader knows."""
        self._woken = asyncio.Event()

    def of(self, node_id: str) -> frozenset[str]:
        """The tasks of a node that are withdrawn."""
        return frozenset(self._withdrawn.get(node_id, ()))

    def rebuild(self, snapshot: Snapshot) -> None:
        """Looks at every task: at the start, and after changes were missed."""
        tasks = snapshot.all(pb.Task).values()
        for task_id in self._node_of.keys() - {task.meta.id for task in tasks}:
            self._forget(task_id)
        for task in tasks:
            self._look_at(task)
        self._away_since.clear()  # one may have been there in between
        for node in snapshot.all(pb.Node).values():
            self._look_at_node(node)
        self._woken.set()

    def notice(self, changes: Iterable[Change]) -> None:
        """Takes in what changed."""
        for change in changes:
            if isinstance(change.after, pb.Task):
                self._look_at(change.after)
            elif isinstance(change.after, pb.Node):
                self._look_at_node(change.after)
            elif isinstance(change.before, pb.Task):
                self._forget(change.before.meta.id)
            elif isinstance(change.before, pb.Node):
                self._away_since.pop(change.before.meta.id, None)
        self.wake()

    def wake(self) -> None:
        """A node has come or gone, or has applied a list."""
        if self._leaving:
            self._woken.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        look_again_ms: int | None = None
        while True:
            delay_s = None if look_again_ms is None else max(look_again_ms - _now_ms(), 1) / 1000
            try:
                async with asyncio.timeout(delay_s):
                    await self._woken.wait()
            except TimeoutError:
                pass  # the bound of some task is over
            self._woken.clear()
            look_again_ms = self._look()

    def _look(self) -> int | None:
        applied = self._applied()
        away = {name for name in self._leaving if self._node_of[name] not in applied}
        decision = withdrawal.decide(self._leaving.values(), applied, _now_ms(), self._away(), away=away)
        homes = {self._node_of[task_id] for task_id in decision.withdrawn}
        for task_id in decision.withdrawn:
            del self._leaving[task_id]
            self._withdrawn.setdefault(self._node_of[task_id], set()).add(task_id)
        for node_id in sorted(homes):
            session = self._sessions.get(node_id)
            if session is not None:
                session.wake()
        return decision.look_again_ms

    def _applied(self) -> dict[str, int]:
        """Of the nodes that are waited for. One whose session has not begun yet, or has just ended, is at nothing."""
        sessions = {node.meta.id: self._sessions.get(node.meta.id) for node in self._sending_nodes()}
        return {node_id: live.applied if live is not None else 0 for node_id, live in sessions.items()}

    def _away(self) -> dict[str, int]:
        """One that is back has a session before it is called READY again."""
        return {name: since for name, since in self._away_since.items() if self._sessions.get(name) is None}

    def _sending_nodes(self) -> Iterable[pb.Node]:
        """Those that may send connections: a kernel does without an agent, too."""
        nodes = self._snapshot().all(pb.Node).values()
        return (node for node in nodes if node.status.state in {pb.NODE_STATE_READY, pb.NODE_STATE_DISCONNECTED})

    def _look_at(self, task: pb.Task) -> None:
        name = task.meta.id
        if not task.node_id or task.desired_state < pb.DESIRED_STATE_SHUTDOWN or states.is_terminal(task.status.state):
            self._forget(name)
        elif name not in self._node_of:
            self._node_of[name] = task.node_id
            self._leaving[name] = withdrawal.Leaving(task_id=name, unlisted=self._table.left(name), since_ms=_now_ms())

    def _look_at_node(self, node: pb.Node) -> None:
        if node.status.state == pb.NODE_STATE_DISCONNECTED:
            self._away_since.setdefault(node.meta.id, _now_ms())
        else:
            self._away_since.pop(node.meta.id, None)

    def _forget(self, task_id: str) -> None:
        node_id = self._node_of.pop(task_id, None)
        self._leaving.pop(task_id, None)
        if node_id is not None and node_id in self._withdrawn:
            self._withdrawn[node_id].discard(task_id)
            if not self._withdrawn[node_id]:
                del self._withdrawn[node_id]


def _now_ms() -> int:
    """Of a clock that nobody sets."""
    return int(asyncio.get_running_loop().time() * 1000)
