"""The members of etcd: who they are, and how one comes and goes.

The rule: a member comes as a learner, which counts for no quorum, and is promoted when it has caught up. So one that
never starts, or starts late, takes nothing from the cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
import structlog
from aetcd import rpc

from controlplane.store import endpoints

CHANGE_TIMEOUT_S = 10.0
"""etcd waits for a change of its members to be carried out."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`name` and `client` are empty until it has been started."""

    id: int
    name: str
    peer: str
    client: str
    learner: bool

    @property
    def endpoint(self) -> str:
        """`host:port`; empty until it has been started."""
        return urlsplit(self.client).netloc


class Members:
    """Asks and changes over the links of a store. Raises `Unavailable`, and `Refused` with etcd's reason."""

    def __init__(self, links: endpoints.Endpoints) -> None:
        self._links = links

    async def all(self) -> Sequence[Member]:
        """Those that there are, in the order of their ids."""
        answer = await self._links.call(
            "list the members",
            lambda link: link.cluster.MemberList(rpc.MemberListRequest(), timeout=endpoints.TRY_TIMEOUT_S),
        )
        return sorted((_member(one) for one in answer.members), key=lambda one: one.id)

    async def add_learner(self, peer: str) -> None:
        """One that will be reached at this URL by the others."""
        request = rpc.MemberAddRequest(peerURLs=[peer], isLearner=True)
        await self._links.write(
            f"add the member {peer}",
            lambda link: link.cluster.MemberAdd(request, timeout=CHANGE_TIMEOUT_S),
            repeatable=False,
        )

    async def promote(self, member: Member) -> None:
        """Makes a learner one that counts. Refused until it has caught up."""
        request = rpc.MemberPromoteRequest(ID=member.id)
        await self._links.call(
            f"promote the member {member.name}",
            lambda link: link.cluster.MemberPromote(request, timeout=CHANGE_TIMEOUT_S),
        )

    async def remove(self, member: Member) -> None:
        """Takes it out. One that is out already is no error. Refused when the rest would have no quorum."""
        request = rpc.MemberRemoveRequest(ID=member.id)
        try:
            await self._links.call(
                f"remove the member {member.name}",
                lambda link: link.cluster.MemberRemove(request, timeout=CHANGE_TIMEOUT_S),
            )
        except endpoints.Refused as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def home_leads(self) -> bool:
        """Whether the member on this machine leads the store."""
        home = self._links.home
        if home is None:
            return False
        try:
            answer = await home.maintenance.Status(rpc.StatusRequest(), timeout=endpoints.TRY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False  # it is not there, and leads nothing
        return bool(answer.leader == answer.header.member_id)

    async def hand_over(self, to: Member) -> None:
        """Has another member lead the store, when the one on this machine does. Raises nothing: it may try again."""
        home = self._links.home
        assert home is not None, "there is a member on this machine"
        try:
            await home.maintenance.MoveLeader(rpc.MoveLeaderRequest(targetID=to.id), timeout=endpoints.TRY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            log.info("store.not_handed_over", to=to.name, reason=error.details())


def _member(said: Any) -> Member:
    return Member(
        id=said.ID,
        name=said.name,
        peer=next(iter(said.peerURLs), ""),
        client=next(iter(said.clientURLs), ""),
        learner=said.isLearner,
    )
