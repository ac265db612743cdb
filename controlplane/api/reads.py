"""Get and list, from the watch cache.

The rule: an answer says how old it is. While the store cannot be reached the cache goes on answering, and a list says
that it is stale; before the store was ever reached there is nothing to answer with.
"""

from controlplane.api.endpoints import EndpointsView
from controlplane.core import lookup
from controlplane.core import request_errors as errors
from controlplane.store import cache, snapshots
from protos import kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2


class Reads:
    """What can be answered without writing."""

    def __init__(self, known: cache.Cache) -> None:
        self._cache = known
        self._endpoints = EndpointsView(known)

    def get(self, request: pb.GetRequest) -> objects_pb2.Object:
        return kinds.wrap(lookup.find(self.state(), request.reference, self._endpoints.of))

    def list(self, request: pb.ListRequest) -> pb.ListResponse:
        state = self.state()
        stale_for_s = self._cache.stale_for_s()
        return pb.ListResponse(
            objects=[kinds.wrap(value) for value in lookup.Selection(request).take(state, self._endpoints.of)],
            revision=state.revision,
            stale=not self._cache.connected,
            stale_for=int((stale_for_s or 0) * 1000),
        )

    def state(self) -> snapshots.Snapshot:
        """The newest state that is known here. Raises NotReachable before the first listing."""
        if self._cache.revision == 0:
            raise errors.NotReachable(
                "this instance has not been able to read the store since it started",
                hint="see `store_problem` in `orchctl version`, and whether etcd runs",
            )
        return self._cache.snapshot()
