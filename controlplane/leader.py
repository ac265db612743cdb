"""What an instance does while it leads: it runs every controller, and serves the agents.

Nothing is kept in memory that a new leader would miss. It begins by looking at everything.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from controlplane.controllers import (
    dependencies,
    drains,
    events,
    expiry,
    nodes,
    rebalancing,
    reporting,
    scheduling,
    services,
)
from controlplane.controllers.loop import Loop, Planner
from controlplane.controllers.pen import Pen
from controlplane.core import scheduler
from controlplane.core.events import Limits
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.dispatcher.session import Session
from controlplane.store import api, election
from controlplane.store.cache import Cache
from protos.orch.v1 import dispatcher_pb2 as wire

log = structlog.get_logger()

GRACE_MS = 5_000
"""How long a new leader waits for agents to come before it calls a node lost."""


Chore = Callable[[api.Fence], Coroutine[Any, Any, None]]
"""What a leader does beside its controllers, about what is no object: until cancelled, and behind the fence that it is
given. It may raise `Deposed`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a leader takes from outside: the clock (milliseconds since 1970), chance, and names for new tasks."""

    now_ms: Callable[[], int]
    random: random.Random
    suffixes: Iterator[str]
    ranges: nodes.Ranges
    network_mode: wire.NetworkMode.ValueType = wire.NETWORK_MODE_AUTO
    network_mtu: int = 0
    """0: each node works it out."""
    events: Limits = field(default_factory=Limits)
    strategy: scheduler.Strategy = scheduler.Strategy.SPREAD
    """What the scheduler does with nodes that are as good as each other."""
    rebalance_moves_per_minute: int = 6
    """0: tasks stay where they are."""

    @property
    def network(self) -> wire.NodeNetwork:
        """What every node has to know of the network."""
        return wire.NodeNetwork(
            cluster_range=self.ranges.cluster,
            service_range=self.ranges.services,
            cluster_range6=self.ranges.cluster6,
            service_range6=self.ranges.services6,
            mode=self.network_mode,
            mtu=self.network_mtu,
        )


async def lead(
    *,
    store: api.Store,
    cache: Cache,
    leadership: election.Leadership,
    dispatcher: Dispatcher,
    world: World,
    name: str,
    chores: Sequence[Chore] = (),
) -> None:
    """Leads under a name until cancelled. Raises `Deposed` when the store says that another leads."""
    fence = leadership.fence
    pen = Pen(store, cache, fence)
    # Events have a pen of their own: nothing else ever waits for them.
    told = Loop(events.Events(name, world.events, world.now_ms), Pen(store, cache, fence), world.now_ms, world.random)
    reports = reporting.Reporting()
    outlook = scheduling.Outlook(strategy=world.strategy, holders=dispatcher.holders)
    planners: Sequence[Planner] = (
        nodes.NodeRecords(dispatcher.sessions, world.ranges, world.now_ms() + GRACE_MS),
        nodes.NodeLoss(dispatcher.sessions, _clock_ms),
        drains.Drains(),
        services.Services(world.suffixes, world.ranges.services, world.ranges.services6),
        services.Garbage(),
        dependencies.Dependencies(),
        expiry.Expiry(),
        rebalancing.Rebalancing(world.suffixes, outlook, world.rebalance_moves_per_minute),
        scheduling.Scheduling(outlook),
        reports,
    )
    loops = {planner.name: Loop(planner, pen, world.now_ms, world.random) for planner in planners}

    def take_report(session: Session, report: wire.StatusReport) -> None:
        loops[reports.name].wake(reports.submit(session, report))

    dispatcher.sessions.on_change(lambda node_id: loops[nodes.NodeRecords.name].wake([node_id]))
    dispatcher.lead(take_report, world.network, leadership.holds)
    try:
        async with asyncio.TaskGroup() as group:
            for loop in (*loops.values(), told):
                group.create_task(loop.run())
            for chore in chores:
                group.create_task(chore(fence))
            group.create_task(dispatcher.work())
            group.create_task(_feed(cache, [*loops.values(), told], dispatcher))
    finally:
        dispatcher.sessions.forget_listeners()
        dispatcher.follow("this instance leads no more")


def _clock_ms() -> int:
    """A clock that nobody sets."""
    return int(asyncio.get_running_loop().time() * 1000)


async def _feed(cache: Cache, loops: Sequence[Loop], dispatcher: Dispatcher) -> None:
    """Tells every loop what changed. The first thing taken is a resync: everything is looked at once."""
    with cache.subscribe() as subscription:
        while True:
            taken = await subscription.take()
            snapshot = cache.snapshot()
            if taken.resync:
                for loop in loops:
                    loop.look_at_everything(snapshot)
                dispatcher.notice_everything()
            for change in taken.changes:
                for loop in loops:
                    loop.notice(change, snapshot)
            dispatcher.notice(taken.changes)
