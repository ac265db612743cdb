"""What the API asks of the rest of its instance."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protos.link import Link
from protos.orch.v1 import dispatcher_pb2 as wire

AgentLink = Link[wire.StreamFrame, wire.StreamFrame]


class Streams(Protocol):
    """The way to an agent, through the session that it holds with the leader."""

    async def open(self, node_id: str, request: wire.OpenStream) -> AgentLink:
        """A stream to the agent of a node. The caller closes it. Raises `NodeUnreachable`."""
        ...


class NetworkView(Protocol):
    """What the leader tells nodes of the network."""

    def settings(self) -> wire.NodeNetwork:
        """What is the same for all nodes."""
        ...

    def services(self) -> Sequence[wire.NetworkService]:
        """All of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who leads, as this instance knows it. Both empty while nobody does."""

    name: str = ""
    address: str = ""
    here: bool = False
    """It is this instance."""


class Election(Protocol):
    """What is known of the leader and of the store."""

    def leader(self) -> Leader:
        """Who leads now."""
        ...

    def store_problem(self) -> str:
        """What is wrong with the store, in one line; empty while all is well."""
        ...


class Outside(Protocol):
    """The registries that images are named after."""

    async def resolve(self, images: Collection[str]) -> Mapping[str, str]:
        """The digests of those whose registries tell in time."""
        ...
