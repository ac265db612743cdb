"""One instance of the control plane, without its network edge: cache, election, and leading while it is the leader.

    store ──► cache ──► API and dispatcher
      └─────► elector ──► lead(…) until deposed, then again a candidate

It runs in the product and in the simulation alike: clock, chance and ids come from outside.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from controlplane import leader as leading
from controlplane import metrics
from controlplane.api import ports
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.store import api, cache, election
from controlplane.store import errors as store_errors
from protos import running

CAUGHT_UP_TIMEOUT_S = 30.0
RETRY_S = 0.5

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`address` is where agents and people reach the instance."""

    name: str
    address: str


class Instance:
    """`run` it in a task; everything else may be used at once."""

    def __init__(
        self,
        store: api.Store,
        identity: Identity,
        world: leading.World,
        *,
        new_id: Callable[[], str],
        lease_s: int = election.TTL_S,
    ) -> None:
        self.cache = cache.Cache(store)
        self.chores: list[leading.Chore] = []
        """What is done beside the controllers, by whoever leads next."""
        self.dispatcher = Dispatcher(self.cache.snapshot, self._leader_pair, new_id, self._until_led)
        self._store = store
        self._identity = identity
        self._world = world
        self._lease_s = lease_s
        self._leads = False
        self._known: election.Leader | None = None
        self._learnt = asyncio.Event()  # set, and replaced, when somebody else leads

    async def run(self) -> None:
        """Runs until cancelled. A leadership that is held then is given up at once, so that another can begin."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cache.run())
            group.create_task(self._keep_leading())
            group.create_task(self._keep_knowing())

    def leader(self) -> ports.Leader:
        """Who leads, as far as it is known here."""
        if self._leads:
            return ports.Leader(name=self._identity.name, address=self._identity.address, here=True)
        if self._known is None or self._known.identity == self._identity.name:
            return ports.Leader()  # this instance's key may outlive its belief by a moment
        return ports.Leader(name=self._known.identity, address=self._known.address)

    def store_problem(self) -> str:
        """What is wrong with the store, as seen from here; empty while all is well."""
        stale_for_s = self.cache.stale_for_s()
        if stale_for_s is None:
            return "the store has not answered since this instance started"
        return f"the store has not answered for {stale_for_s:.0f} s" if not self.cache.connected else ""

    async def _until_led(self, lost: str, timeout_s: float) -> None:
        """Waits until another instance leads, as far as it is known here, or until the time is over: one at another
        address than that, or one that has begun there meanwhile.
        """
        before = self._known
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (known := self.leader()).name or known.here or (known.address, self._known) == (lost, before):
                    await self._learnt.wait()

    def _leader_pair(self) -> tuple[str, str]:
        known = self.leader()
        return known.name, known.address

    async def _keep_leading(self) -> None:
        elector = election.Elector(
            self._store, identity=self._identity.name, address=self._identity.address, ttl_s=self._lease_s
        )
        while True:
            expected = (store_errors.Deposed, store_errors.Temporary)
            failure = await running.until_failure(self._lead_once(elector), expected=expected)
            _log.warning("leadership lost", why=str(failure))
            if isinstance(failure, store_errors.Temporary):
                await asyncio.sleep(RETRY_S)

    async def _lead_once(self, elector: election.Elector) -> None:
        async with elector.leading() as leadership:
            # A leader begins with everything that was written before its time.
            await self.cache.wait_for(leadership.fence.version, CAUGHT_UP_TIMEOUT_S)
            metrics.ELECTIONS.inc()
            _log.info("this instance leads", name=self._identity.name, term=leadership.fence.version)
            self._leads = True
            self._notice_leader()
            try:
                await leading.lead(
                    store=self._store,
                    cache=self.cache,
                    leadership=leadership,
                    dispatcher=self.dispatcher,
                    world=self._world,
                    name=self._identity.name,
                    chores=self.chores,
                )
            finally:
                self._leads = False

    def _notice_leader(self) -> None:
        learnt, self._learnt = self._learnt, asyncio.Event()
        learnt.set()

    async def _keep_knowing(self) -> None:
        """Follows who leads, for redirects."""
        while True:
            try:
                async with contextlib.aclosing(election.watch_leader(self._store)) as leaders:
                    async for known in leaders:
                        self._known = known
                        self._notice_leader()
            except store_errors.Temporary:
                # Who led last probably still does; agents and people are better sent there than nowhere.
                await asyncio.sleep(RETRY_S)
