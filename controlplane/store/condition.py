"""How etcd's members are, as each says itself. For metrics and for the doctor; nothing is decided by it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc.aio
from aetcd import rpc

from controlplane.store import endpoints

TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One endpoint. `problem`: why it does not answer; empty: it does. `errors`: what it complains of itself."""

    address: str
    problem: str = ""
    version: str = ""
    errors: Sequence[str] = ()
    alarms: Sequence[str] = ()
    """Such as `NOSPACE`, of the whole cluster."""
    is_leader: bool = False
    has_leader: bool = False
    term: int = 0
    index: int = 0
    size_bytes: int = 0
    used_bytes: int = 0
    """Of that; the rest is free again, and comes back with a defragmentation."""


async def of(members: endpoints.Endpoints) -> Sequence[Member]:
    """All at once, each within TIMEOUT_S."""
    found = await asyncio.gather(*(members.guard(_ask(link)) for link in members.in_order()))
    return sorted(found, key=lambda one: str(one.address))


async def _ask(link: endpoints.Link) -> Member:
    try:
        said = await link.maintenance.Status(rpc.StatusRequest(), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return Member(address=link.address, problem=endpoints.plain(error))
    return Member(
        address=link.address,
        version=said.version,
        errors=tuple(said.errors),
        alarms=await _alarms(link),
        is_leader=said.leader == said.header.member_id,
        has_leader=said.leader != 0,
        term=said.raftTerm,
        index=said.raftIndex,
        size_bytes=said.dbSize,
        used_bytes=said.dbSizeInUse,
    )


async def _alarms(link: endpoints.Link) -> Sequence[str]:
    """Those of the whole cluster. Without a quorum nobody can say, and there is a worse trouble to be told."""
    try:
        # The request's zero values ask for every alarm of every member.
        said = await link.maintenance.Alarm(rpc.AlarmRequest(), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return ()
    return tuple(sorted({rpc.AlarmType.Name(one.alarm) for one in said.alarms}))
