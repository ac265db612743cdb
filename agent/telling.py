"""Where an agent tells of itself: its health beside the blobs that it gives, and the page that Prometheus reads.

The rule: what runs on the node does not depend on it. A port that is taken is told, and the agent goes on without.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from agent import metrics, state_metrics
from agent.members import Members
from agent.readers import Readers
from agent.rpc import Server
from telemetry import health, page
from telemetry.metrics import Reading
from trust.folder import Folder, Material

log = structlog.get_logger()


class Telling:
    """`members`: the machines of the cluster; None: without TLS, and to everybody. `restored`: the agent works."""

    def __init__(
        self, server: Server, members: Members | None, restored: asyncio.Event, now_ms: Callable[[], int]
    ) -> None:
        self._server = server
        self._readers = Readers(server.may_read, members, now_ms) if members is not None else None
        self._serves: dict[str, health.Serving] = {health.SERVER: restored.is_set}
        self.health = health.Health(self._serves, self._readers.health_refusal if self._readers is not None else None)

    @contextlib.asynccontextmanager
    async def serving(self, node: state_metrics.Node, folder: Folder, address: str, port: int) -> AsyncIterator[None]:
        """Inside the block the page is there; with port 0, or without certificates, it is nowhere."""
        self._serves["orch.v1.Dispatcher"] = node.session.connected.is_set
        reading = Reading(metrics.REGISTRY)
        node.add(reading)
        guard = self._guard(folder)
        addresses = [(address, port)] if port and guard is not None else []
        async with contextlib.AsyncExitStack() as stack:
            try:
                if guard is not None:
                    await stack.enter_async_context(page.serving(addresses, reading.text, guard))
            except page.CannotServe as error:
                log.warning("nobody can read the metrics of this node", why=str(error))
            yield

    def _guard(self, folder: Folder) -> page.Guard | None:
        first = self._server.own
        if self._readers is None or first is None:
            return None

        def current() -> Material:
            return self._server.own or first

        return page.Guard(folder=folder, current=current, refusal=self._readers.refusal)
