"""The endpoints of all services, as people are shown them, kept from one question to the next.

They are stored nowhere: a table is worked out of the tasks, as the leader works out its own. With 10,000 tasks that
takes 80 ms in which nobody else is answered; so what has not changed since the last question is shown as it was.

The rule: an answer is a function of the state that it is asked for. What is kept only saves working it out.
"""

import contextlib
from collections.abc import Mapping

from controlplane.core import endpoint_table
from controlplane.core.endpoint_table import Table
from controlplane.store import cache, feed, snapshots
from protos import kinds
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

PENDING_LIMIT = 2_000
"""Changes that are kept while nobody asks. After more of them everything is worked out anew."""


class EndpointsView:
    """Of one instance, for as long as it lives. The first question begins it."""

    def __init__(self, known: cache.Cache) -> None:
        self._cache = known
        self._table = Table()
        self._subscription: feed.Subscription | None = None
        self._held = contextlib.ExitStack()
        self._shown: dict[str, tuple[wire.NetworkService, pb.Service, pb.Endpoints]] = {}

    def of(self, state: snapshots.Snapshot) -> Mapping[str, pb.Endpoints]:
        """By the keys that they would have in the store. `state` is the cache's newest."""
        self._follow(state)
        by_id = {service.meta.id: service for service in state.all(pb.Service).values()}
        shown = {}
        for value in self._table.everything().changed:
            service, known = by_id[value.id], self._shown.get(value.id)
            if known is None or known[0] is not value or known[1] is not service:
                known = (value, service, endpoint_table.shown(value, by_id))
            shown[value.id] = known
        self._shown = shown
        return {kinds.key(endpoints): endpoints for _, _, endpoints in shown.values()}

    def _follow(self, state: snapshots.Snapshot) -> None:
        if self._subscription is None:
            self._subscription = self._held.enter_context(self._cache.subscribe(limit=PENDING_LIMIT))
            self._subscription.resync()
        taken = self._subscription.take_now()
        if taken.resync:
            self._table.rebuild(state)
        else:
            self._table.update(taken.changes, state)
