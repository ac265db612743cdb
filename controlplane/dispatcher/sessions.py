"""Who is connected to the leader, and the way to wake or end each of them.

The sessions write here, the node controller reads. It is the leader's only state that is not in the store: a new
leader starts with nobody, and fills it as agents come. What agents have said when they went is kept until they are
back, since the node's record is written only after the session is gone.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from controlplane.core import nodes
from protos.orch.v1 import dispatcher_pb2 as wire


class LiveSession(Protocol):
    """What others may do with a session."""

    info: nodes.Session
    applied: int
    """The list of services that the node has applied; 0 = none yet."""
    back_within_ms: int
    """The agent goes in order, and is back within this time; 0 = it has said nothing of the kind."""

    def wake(self) -> None:
        """Something in the node's assignment may have changed."""

    def open_stream(self, request: wire.OpenStream) -> None:
        """Asks the agent to open a stream. Raises `asyncio.QueueFull` when it is not listening."""

    def acknowledge(self, sequence: int) -> None:
        """Tells the agent that its report is stored."""

    def tell(self, message: wire.LeaderMessage) -> None:
        """Sends the agent a message that is about no task."""

    def end(self, why: str) -> None:
        """Ends the session soon; the agent connects again."""


class Sessions:
    """The live sessions by node id. A node has one: a newer one ends the older."""

    def __init__(self) -> None:
        self._live: dict[str, LiveSession] = {}
        self._announced: dict[str, int] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._news: dict[str, wire.LeaderMessage] = {}

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the id of each node that comes or goes."""
        self._listeners.append(listener)

    def forget_listeners(self) -> None:
        """The leadership that listened is over."""
        self._listeners.clear()

    def begin(self) -> None:
        """A leadership begins: what was announced to an earlier one is in the store, or too long ago."""
        self._announced.clear()

    def add(self, session: LiveSession) -> None:
        """Takes in a session."""
        self._announced.pop(session.info.node_id, None)
        older = self._live.get(session.info.node_id)
        self._live[session.info.node_id] = session
        if older is not None:
            older.end("the node has opened a newer session")
        for news in self._news.values():
            session.tell(news)
        self._tell(session.info.node_id)

    def remove(self, session: LiveSession) -> None:
        """Forgets a session, unless a newer one has taken its place."""
        if self._live.get(session.info.node_id) is session:
            del self._live[session.info.node_id]
            if session.back_within_ms > 0:
                self._announced[session.info.node_id] = session.back_within_ms
            self._tell(session.info.node_id)

    def get(self, node_id: str) -> LiveSession | None:
        """The node's session, if it has one."""
        return self._live.get(node_id)

    def descriptions(self) -> Mapping[str, nodes.Session]:
        """What the connected agents said of themselves, by node id."""
        return {node_id: live.info for node_id, live in self._live.items()}

    def announced(self) -> Mapping[str, int]:
        """Within which time agents that have gone in order are back, in milliseconds from then on, by node id."""
        return dict(self._announced)

    def announce(self, news: wire.LeaderMessage) -> None:
        """Tells every agent, and each that comes from now on, until there is other news of this kind."""
        self._news[news.WhichOneof("message") or ""] = news
        for live in self._live.values():
            live.tell(news)

    def wake_all(self) -> None:
        """Everybody looks at their assignment again."""
        for live in self._live.values():
            live.wake()

    def end_all(self, why: str) -> None:
        """Everybody has to connect again."""
        for live in list(self._live.values()):
            live.end(why)

    def _tell(self, node_id: str) -> None:
        for listener in self._listeners:
            listener(node_id)
