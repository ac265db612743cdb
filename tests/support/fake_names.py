"""Whoever answers names, in a simulation or a unit test: it is told, and nobody asks it."""

from collections.abc import Collection, Mapping

from agent.core.hostfiles import Resolving
from protos.orch.v1 import dispatcher_pb2 as dpb


class FakeNames:
    """Remembers what it was told last."""

    def __init__(self) -> None:
        self.network: dpb.NodeNetwork | None = None
        self.services: Mapping[str, dpb.NetworkService] = {}
        self.resumed = False

    def update(
        self, network: dpb.NodeNetwork | None, services: Mapping[str, dpb.NetworkService], touched: Collection[str]
    ) -> None:
        before = self.services
        others = {key for key in before.keys() | services.keys() if before.get(key) is not services.get(key)}
        assert others <= set(touched), "whatever is other than before is said to be"
        self.network, self.services = network, services

    async def serve(self) -> None:
        assert self.network is not None, "names are answered at the gateway's address"

    async def resume(self) -> None:
        self.resumed = self.network is not None

    def resolving(self) -> Resolving:
        return Resolving(servers=("10.112.1.1",), search=("example.com",))
