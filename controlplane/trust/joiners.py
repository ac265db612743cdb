"""Takes the member of etcd of an instance that joins into the store, and out again when the instance goes.

The rule: taking in may be repeated. One that was taken in by a try that did not come to its end, and was never started,
is the same one; it is a learner, and counts for nothing until it runs.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence

from controlplane.core import request_errors as errors
from controlplane.core.trust import etcd_flags
from controlplane.store import endpoints, etcd_members
from controlplane.store import errors as store_errors
from controlplane.trust import storeplace
from trust.folder import Folder

PATIENCE_S = 6.0
"""Less than whoever stands at the door waits."""
RETRY_S = 0.5
_REFUSALS = (endpoints.Refused, store_errors.Unavailable)
_STARTED = "the one that joined before has not been started, or has not caught up"


class Joiners:
    """`members` are those of the store; None where it is no etcd. `folder`: this instance's."""

    def __init__(self, members: etcd_members.Members | None, folder: Folder) -> None:
        self._members = members
        self._folder = folder

    @property
    def manages(self) -> bool:
        """Whether there are members to take in."""
        return self._members is not None

    async def admit(self, name: str, host: str) -> tuple[etcd_flags.Member, Sequence[str]]:
        """The member of an instance, as it is to be started, and where the store is. Raises NotNow or Invalid."""
        if self._members is None or not host:
            raise errors.Invalid("nothing says where other machines reach the new one", hint="join with --host ADDRESS")
        wanted = etcd_flags.at_host(name, host)
        there = await self._members.all()
        known = next((one for one in there if one.peer == wanted.peer), None)
        if known is not None and known.name:
            text = f"a member of etcd is at {wanted.peer} already, and is called {known.name}"
            raise errors.NotNow(text, hint=f"`orchctl cluster member revoke controlplane:{known.name}` takes it out")
        if known is None:
            await self._add(wanted, there)
        cluster = {one.name: one.peer for one in there if one.name} | {name: wanted.peer}
        member = etcd_flags.joining(name, host, cluster)
        return member, [*storeplace.load(self._folder).endpoints, member.endpoint]

    async def _add(self, wanted: etcd_flags.Member, there: Sequence[etcd_members.Member]) -> None:
        assert self._members is not None, "it was looked at"
        waiting = next((one for one in there if one.learner or not one.name), None)
        if waiting is not None:
            hint = f"start its etcd and its control plane; or take it out: {_revoke(waiting)}"
            raise errors.NotNow(f"one member of etcd joins at a time, and {_STARTED}: {waiting.peer}", hint=hint)
        if any(one.name == wanted.name for one in there):
            hint = f"join with another --name, or take that one out: `{_revoke_name(wanted.name)}`"
            raise errors.NotNow(f"another member of etcd is called {wanted.name}", hint=hint)
        await self._add_learner(self._members, wanted.peer)

    async def _add_learner(self, members: etcd_members.Members, peer: str) -> None:
        async def add() -> None:
            if all(one.peer != peer for one in await members.all()):  # else it was done, and the answer was lost
                await members.add_learner(peer)

        try:
            await _patiently(add)
        except _REFUSALS as error:
            raise errors.NotNow(f"etcd takes no member now: {error}", hint="try again in a moment") from error

    async def dismiss(self, name: str, *, started: bool) -> None:
        """Takes the member of an instance out. One without a member is no error. Raises NotNow."""
        if self._members is None:
            return
        there = await self._members.all()
        found = next((one for one in there if one.name == name), None)
        if found is None and not started:  # then it has no name yet; there is one of that kind at most
            found = next((one for one in there if not one.name), None)
        if found is None:
            return
        if len(there) == 1:
            text = f"the member of etcd beside {name} is the only one: the whole cluster is in it"
            raise errors.NotNow(text, hint="join another control plane first")
        try:
            await _patiently(functools.partial(self._members.remove, found))
        except _REFUSALS as error:
            hint = "start the other members first; where most are lost for good, `orchctl cluster restore` a backup"
            raise errors.NotNow(f"etcd does not let {name} go: {error}", hint=hint) from error


async def _patiently(change: Callable[[], Awaitable[None]]) -> None:
    """etcd refuses until its members have known each other for five seconds: then it is asked again."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            await change()
        except _REFUSALS:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            return


def _revoke(member: etcd_members.Member) -> str:
    return _revoke_name(member.name or "NAME")


def _revoke_name(name: str) -> str:
    return f"orchctl cluster member revoke controlplane:{name}"
