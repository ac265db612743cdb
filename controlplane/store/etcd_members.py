"""The members of etcd: who they are, and how one comes and goes.

The rule: a member comes as a learner, which counts for no quorum, and is promoted when it has caught up. So one that
never starts, or starts late, takes nothing from the cluster.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
import structlog
from aetcd import rpc

from controlplane.store import endpoints

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
    """Asks and changes over the links of a store. Raises `Unavailable`, and `Refused` with etcd's reason.

    A change may be sent several times: one that has happened is refused the next time, and a refusal of what is so
    already is none.
    """

    def __init__(self, links: endpoints.Endpoints) -> None:
        self._links = links

    async def all(self) -> Sequence[Member]:
        """Those that there are, in the order of their ids."""
        answer = await self._links.call(
            "list the members",
            lambda link, timeout_s: link.cluster.MemberList(rpc.MemberListRequest(), timeout=timeout_s),
        )
        return sorted((_member(one) for one in answer.members), key=lambda one: one.id)

    async def add_learner(self, peer: str) -> None:
        """One that will be reached at this URL by the others. One that is there already is no error."""
        request = rpc.MemberAddRequest(peerURLs=[peer], isLearner=True)
        await self._change(
            f"add the member {peer}",
            lambda link, timeout_s: link.cluster.MemberAdd(request, timeout=timeout_s),
            lambda members: any(one.peer == peer for one in members),
        )

    async def promote(self, member: Member) -> None:
        """Makes a learner one that counts. Refused until it has caught up."""
        request = rpc.MemberPromoteRequest(ID=member.id)
        await self._change(
            f"promote the member {member.name}",
            lambda link, timeout_s: link.cluster.MemberPromote(request, timeout=timeout_s),
            lambda members: any(one.id == member.id and not one.learner for one in members),
        )

    async def remove(self, member: Member) -> None:
        """Takes it out. One that is out already is no error. Refused when the rest would have no quorum."""
        request = rpc.MemberRemoveRequest(ID=member.id)
        try:
            await self._links.write(
                f"remove the member {member.name}",
                lambda link, timeout_s: link.cluster.MemberRemove(request, timeout=timeout_s),
            )
        except endpoints.Refused as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def _change(self, what: str, ask: endpoints.Ask, is_done: Callable[[Sequence[Member]], bool]) -> None:
        try:
            await self._links.write(what, ask)
        except endpoints.Refused:
            if not is_done(await self.all()):
                raise

    async def home_leads(self) -> bool:
        """Whether the member on this machine leads the store. One that is not there leads nothing."""
        status = await self._links.home_status()
        return status is not None and status.leader == status.header.member_id

    async def follows_home(self, member: Member) -> bool:
        """Whether another member is there, and knows the one on this machine as the leader of the store."""
        home, there = await self._links.home_status(), await self._links.status(member.endpoint)
        return home is not None and there is not None and there.leader == home.header.member_id

    async def hand_over(self, to: Member) -> bool:
        """Has another member lead the store, when the one on this machine does. False: it does not, or not yet."""
        home = self._links.home
        assert home is not None, "there is a member on this machine"
        try:
            await home.maintenance.MoveLeader(rpc.MoveLeaderRequest(targetID=to.id), timeout=endpoints.TRY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            log.info("store.not_handed_over", to=to.name, reason=error.details())
            return False
        return True


def _member(said: Any) -> Member:
    return Member(
        id=said.ID,
        name=said.name,
        peer=next(iter(said.peerURLs), ""),
        client=next(iter(said.clientURLs), ""),
        learner=said.isLearner,
    )
