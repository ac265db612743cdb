"""What an instance does in an exchange of the store's root: with its own files, and the member of etcd beside it.

    REISSUING   writes down both roots, has its certificates and the member's made anew, and reports it
    DROPPING    writes down the new root alone; when it has its turn, ends the member, which is then started again

Two rules. Everything is looked at anew each time, on the disk and in the store, so that an instance that was killed
goes on where it was. And a member is ended only while every other one is there, follows the same leader and has caught
up, and never the leader itself: it hands the store over before.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

import structlog

from controlplane.core import request_errors
from controlplane.core.trust import etcd_flags, rotation, store_rotation
from controlplane.store import condition, errors, etcd_members
from controlplane.store.etcd import EtcdStore
from controlplane.trust import beside, storeplace
from controlplane.trust.membership import STORE_IDENTITY, STORE_ROOTS
from controlplane.trust.standing import Standing
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import certificate
from trust.core.identity import Malformed
from trust.folder import NotTrusted

LOOK_EVERY_S = 1.0
"""While the member beside this instance has to be started anew; else what changes in the store wakes it."""
BACK_S = 60.0
"""How long a member that was ended may take to come back until somebody is told."""
CAUGHT_UP = 1000
"""Entries of etcd's log. One that is further behind may take longer than an election to follow."""

NOT_NOTED = "its etcd does not run, or was not started by orch-etcd of this release: restart orch-etcd there"
NOT_RESTARTED = (
    "nothing would start its etcd again when it ends (--restarted): restart orch-etcd there, it has its turn"
)

_log = structlog.get_logger()


class StoreExchange:
    """`run` it beside the instance, where a member of etcd is beside it."""

    def __init__(self, mine: Standing, store: EtcdStore) -> None:
        self._mine = mine
        self._store = store
        self._woken = asyncio.Event()
        self._back_until = 0.0  # on the event loop's clock

    def wake(self, _changed: Iterable[str]) -> None:
        """Something has changed in the registry, which it listens to."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. What does not work is tried again."""
        await self._mine.registry.loaded.wait()
        while True:
            pause_s: float | None = LOOK_EVERY_S
            try:
                pause_s = await self._look()
            except (errors.StoreError, request_errors.RequestError, errands.NotMade, NotTrusted, Malformed) as error:
                _log.warning("the exchange of the store's root does not go on here yet", why=str(error))
            # Not `wait_for`, which forgets a cancellation that comes in the moment of the waking (Python 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            self._woken.clear()

    async def _look(self) -> float | None:
        """Does what is to be done now. In how many seconds to look again; None: when something has changed."""
        mine, place = self._mine, storeplace.load(self._mine.folder)
        if place.member is None or not mine.registry.cluster:
            return None
        trust = mine.registry.trust
        if not trust.store_rotation:
            return None
        await self._keep(trust)
        done = False
        if trust.store_rotation == store_rotation.DROPPING:
            done, problem = await self._drop(trust, place.member)
        else:
            problem = ""
        await mine.membership.publish_store(mine.own.identity, self._standing(trust, problem, done=done))
        return None if done or trust.store_rotation == store_rotation.REISSUING else LOOK_EVERY_S

    def _standing(self, trust: pb.TrustRecord, problem: str, *, done: bool) -> pb.StoreStanding:
        new = rotation.pin(trust.store_root)
        return pb.StoreStanding(
            issued_by=new if self._has_certificates(trust) else "", believes=new if done else "", problem=problem
        )

    # Files ------------------------------------------------------------------------------------------------------------

    async def _keep(self, trust: pb.TrustRecord) -> None:
        """The roots that are to be believed, and certificates of the one that issues, are in the folder and in use."""
        changed = self._keep_roots(store_rotation.bundle(trust).encode())
        if not self._has_certificates(trust):
            await self._mine.renew_store()
        elif changed:
            await self._mine.on_store_renewed()

    def _keep_roots(self, roots: bytes) -> bool:
        """Whether they were others before. The member's last: where those are right, the instance's are, too."""
        folder = self._mine.folder
        files = [(folder, STORE_ROOTS), (storeplace.member_folder(folder), storeplace.ROOTS)]
        changed = [(where, name) for where, name in files if where.read(name) != roots]
        for where, name in changed:
            where.write(name, roots)
        return bool(changed)

    def _has_certificates(self, trust: pb.TrustRecord) -> bool:
        """Whether the store's root as it is now has issued both. Each root has a name of its own."""
        folder, issuer = self._mine.folder, certificate.read(trust.store_root.certificate.encode()).subject
        _, own = storeplace.identity(folder, STORE_IDENTITY)
        member = storeplace.member_folder(folder).read(storeplace.CERTIFICATE)
        return all(certificate.read(one).issuer == issuer for one in (own, member))

    # The member beside ------------------------------------------------------------------------------------------------

    async def _drop(self, trust: pb.TrustRecord, member: etcd_flags.Member) -> tuple[bool, str]:
        """Whether the member runs and believes the new root alone; and why it does not go on."""
        process = beside.running(self._mine.folder)
        if process is None:
            return False, "" if asyncio.get_running_loop().time() < self._back_until else NOT_NOTED
        if process.roots == beside.digest(store_rotation.bundle(trust).encode()):
            return await self._is_back(member), ""
        if store_rotation.turn(trust, self._mine.registry.members.values()) != self._mine.own.identity.member:
            return False, ""
        if not process.restarted:
            return False, NOT_RESTARTED
        return False, await self._start_anew(process, member)

    async def _is_back(self, member: etcd_flags.Member) -> bool:
        return any(one.address == member.endpoint and one.has_leader for one in await self._store.condition())

    async def _start_anew(self, process: beside.Process, member: etcd_flags.Member) -> str:
        """Ends it, if that costs nobody anything; why not, when somebody has to do something."""
        members = await self._store.members.all()
        others = [one for one in members if one.peer != member.peer and not one.learner]
        if problem := not_all_well(others, await self._store.condition()):
            return problem
        if others and await self._store.members.home_leads():
            await self._store.members.hand_over(self._heir(others))
            if await self._store.members.home_leads():
                return ""  # next time
        _log.warning("the member of etcd beside this instance is started anew, to believe the store's new root alone")
        self._back_until = asyncio.get_running_loop().time() + BACK_S
        beside.end(process)
        return ""

    def _heir(self, others: Sequence[etcd_members.Member]) -> etcd_members.Member:
        """One that was started anew already, if there is one: it keeps the store then."""
        mine = self._mine
        new, known = rotation.pin(mine.registry.trust.store_root), mine.registry.members.values()
        done = {one.name.partition(":")[2] for one in known if one.store.believes == new}
        return max(others, key=lambda one: one.name in done)


def not_all_well(others: Sequence[etcd_members.Member], seen: Sequence[condition.Member]) -> str:
    """Why none of the members can be spared now, by how the others are; empty: one can."""
    known = {one.address: one for one in seen}
    index, term = (max((getattr(one, field) for one in seen), default=0) for field in ("index", "term"))
    for other in others:
        found = known.get(other.endpoint)
        if found is None or found.problem:
            return f"the etcd of {other.name or other.peer} does not answer, and all have to: start it, or take it out"
        if not found.has_leader or found.term != term or found.index + CAUGHT_UP < index:
            return f"the etcd of {other.name} has not caught up with the others"
    return ""
