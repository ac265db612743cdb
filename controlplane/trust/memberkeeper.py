"""Keeps an instance and the member of etcd beside it in step with the store's other members.

    addresses   those of the store's members are followed, and kept for the next start
    learner     the member beside this instance is promoted as soon as it has caught up
    leaders     while this instance leads, the store is led on another machine

Why the last: whoever leads the store next gives every lease another life. Were both leaders on one machine, its loss
would cost the time of both elections, one after the other.

The rule: everything is looked at anew each time, and what does not work is tried again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

import structlog

from controlplane.core.trust import etcd_flags
from controlplane.store import errors, etcd_members
from controlplane.store.etcd import EtcdStore
from controlplane.trust import storeplace
from controlplane.trust.registry import INSTANCES
from controlplane.trust.standing import store_credentials
from trust.folder import Folder, NotTrusted

LOOK_EVERY_S = 10.0
LEADS_EVERY_S = 1.0
"""While this instance leads and there are other members: the leaders should not be on one machine for long."""
LEARNS_EVERY_S = 0.5

_log = structlog.get_logger()


class MemberKeeper:
    """`run` it beside the instance. `leads`: whether the instance leads now."""

    def __init__(self, store: EtcdStore, folder: Folder, leads: Callable[[], bool]) -> None:
        self._store = store
        self._folder = folder
        self._leads = leads
        self._woken = asyncio.Event()
        self._tries = 0

    def wake(self, changed: Iterable[str]) -> None:
        """An instance has come or gone. Listens to the registry."""
        if any(name.startswith(INSTANCES) for name in changed):
            self._woken.set()

    async def renewed(self) -> None:
        """What the store knows this instance by was renewed. Raises NotTrusted."""
        await self._store.renew(store_credentials(self._folder))

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            pause_s = LOOK_EVERY_S
            try:
                pause_s = await self._look()
            except (errors.StoreError, NotTrusted) as error:
                _log.info("the store's members were not looked at; next time", why=str(error))
            await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        """Or until it is woken, or this instance begins to lead."""
        led, clock = self._leads(), asyncio.get_running_loop().time
        end = clock() + pause_s
        while not self._woken.is_set() and clock() < end and self._leads() == led:
            # Not `wait_for`, which forgets a cancellation that comes in the moment of the waking (Python 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(end, clock() + LEADS_EVERY_S)):
                    await self._woken.wait()
        self._woken.clear()

    async def _look(self) -> float:
        """In how many seconds to look again."""
        place = storeplace.load(self._folder)
        if place.member is None:
            return LOOK_EVERY_S
        members = await self._store.members.all()
        await self._follow(place, members)
        own = next((one for one in members if one.peer == place.member.peer), None)
        if own is None:
            return LOOK_EVERY_S
        if own.learner:
            await self._promote(own)
            return LEARNS_EVERY_S
        others = [one for one in members if one.id != own.id and one.name and not one.learner]
        if not others or not self._leads():
            return LOOK_EVERY_S
        return await self._hand_over(others)

    async def _follow(self, place: etcd_flags.Place, members: Sequence[etcd_members.Member]) -> None:
        there = [one.endpoint for one in members if one.endpoint and not one.learner]
        if there and set(there) != set(place.endpoints):
            _log.info("the store's members", addresses=",".join(there))
            storeplace.save(self._folder, etcd_flags.Place(endpoints=there, member=place.member))
            await self._store.move(there)

    async def _promote(self, own: etcd_members.Member) -> None:
        try:
            await self._store.members.promote(own)
            _log.info("the member of etcd beside this instance counts now", name=own.name)
        except errors.StoreError as error:
            _log.debug("the member of etcd beside this instance has not caught up", why=str(error))

    async def _hand_over(self, others: Sequence[etcd_members.Member]) -> float:
        """Has one of the other members lead the store, if none does; in how many seconds to look again.

        One that does not take it halts all writes for the time of an election: only one that is there is asked, and
        after a failure another one, and not at once.
        """
        members = self._store.members
        there = [one for one in others if await members.follows_home(one)] if await members.home_leads() else []
        if not there:
            return LEADS_EVERY_S
        self._tries += 1
        return LEADS_EVERY_S if await members.hand_over(there[self._tries % len(there)]) else LOOK_EVERY_S
