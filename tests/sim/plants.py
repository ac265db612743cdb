"""Bugs that somebody might really make, to be planted into the product: the simulation has to find each of them.

Each replaces one function by a plausibly wrong one. A plant names the rules that may catch it, and a seed that is known
to; the test tries that one first and then a whole range.
"""

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from agent import outbox, worker
from agent.core import assignments as held
from agent.core import observed, probes, stopping
from controlplane.api import changing
from controlplane.controllers import events as recording
from controlplane.controllers import loop
from controlplane.core import (
    addresses,
    choosing,
    demand,
    events,
    filters,
    fleet,
    garbage,
    happenings,
    plan,
    preemption,
    prune,
    replacing,
    reports,
    rollout,
    slots,
    tasks,
    withdrawal,
)
from controlplane.core.ask import Ask, stands
from controlplane.dispatcher import withdrawals
from controlplane.store import api, errors, snapshots, writer
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import rollout_plants
from tests.sim.absence_plants import ABSENCE_PLANTS
from tests.sim.brake_plants import BRAKE_PLANTS
from tests.sim.crowd_plants import CROWD_PLANTS
from tests.sim.disruption_plants import DISRUPTION_PLANTS
from tests.sim.fence_plants import FENCE_PLANTS
from tests.sim.particular_plants import PARTICULAR_PLANTS
from tests.sim.planting import Plant, instead
from tests.sim.stock_plants import STOCK_PLANTS

# The leader -----------------------------------------------------------------------------------------------------------


def _accept_whatever_comes(
    task: pb.Task, node_id: str, _node: pb.Node | None, report: wire.TaskReport
) -> plan.Write | None:
    """An old report, overtaken by a newer one, is stored like any other."""
    if task.node_id != node_id or report.status == task.status:
        return None
    changed = plan.copy(task)
    changed.status.CopyFrom(report.status)
    return plan.Write(value=changed, why="reported")


_right_write = writer.write


async def _write_without_fence(store: api.Store, groups: Any, *, fence: api.Fence | None = None) -> int | None:
    del fence
    return await _right_write(store, groups)


def _decide(self: loop.Loop, keys: frozenset[str], snapshot: snapshots.Snapshot) -> plan.Plan:
    return self._planner.decide(snapshot, keys, self._now_ms())


async def _run_and_forget_keys(self: loop.Loop) -> None:
    """After a conflict the loop waits for the next event, instead of looking again."""
    while True:
        keys = await self._next_keys()
        try:
            made = await self._pen.write(functools.partial(_decide, self, keys))
        except (errors.Conflict, errors.Temporary):
            continue
        self._planner.done(keys)
        self._set_timers(keys, made.wake_at)


def _room_of_a_node_that_is_empty(ships: fleet.Fleet, ask: Ask) -> fleet.Amounts:
    """Who passes the filters once is believed to take any number."""
    return np.where(filters.passing(ships, ask), 1_000, 0)


def _doomed_when_unwanted(members: Collection[pb.Task]) -> list[pb.Task]:
    """A task that is to be removed goes at once, whether it has ended or not."""
    return [task for task in members if task.desired_state == pb.DESIRED_STATE_REMOVE]


def _ready_nodes(self: withdrawals.Withdrawals) -> list[pb.Node]:
    """As if a kernel sent nothing without its agent."""
    nodes = self._snapshot().all(pb.Node).values()
    return [node for node in nodes if node.status.state == pb.NODE_STATE_READY]


def _let_go_at_once(leaving: Iterable[withdrawal.Leaving], *_: object, **__: object) -> withdrawal.Decision:
    """Nodes are believed to have heard of it as soon as they were told."""
    return withdrawal.Decision(withdrawn=frozenset(one.task_id for one in leaving), look_again_ms=None)


def _tell_of_events(self: recording.Events, change: snapshots.Change) -> list[str]:
    """An event is something that has happened, too."""
    value = change.after or change.before
    assert isinstance(value, pb.Event)
    self._take(happenings.Happening(about=happenings.about(value), reason="Told", message="it was told", at_ms=1))
    return [recording.KEY]


def _missing_in_the_namespace(there: Iterable[Any], wanted: Collection[Any]) -> list[Any]:
    """What is not in the files goes, whatever stack it is of."""
    kept = {one.meta.name for one in wanted}
    return [one for one in there if isinstance(one, pb.Service) and one.meta.name not in kept]


# The agent ------------------------------------------------------------------------------------------------------------


def _apply_over_gaps(current: held.Assignments, message: wire.Assignment) -> held.Assignments | held.Gap:
    """What is missing in between is not missed."""
    if message.type == wire.Assignment.TYPE_INCREMENTAL and current.sequence is not None:
        message.applies_to = current.sequence
    return _right_apply(current, message)


_right_apply = held.apply


def _begin_with_nothing(self: outbox.Outbox, _everything: object) -> None:
    """The leader is believed to know what it was told in the last session."""
    self._sequence, self._sent = 0, {}
    self._acknowledged.set()


def _drain_nothing(*_: object) -> None:
    """The stop signal comes as soon as the task is to stop."""


async def _restore_nothing(_self: worker.Worker) -> None:
    """An agent begins with an empty node, whatever runs there."""


async def _next_batch_once(self: outbox.Outbox) -> wire.StatusReport:
    """A batch that was not acknowledged is forgotten."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(outbox.REPEAT_S):
            await self._acknowledged.wait()
    self._sent = {}
    return await _right_next_batch(self)


def _desired_by_name(task: pb.Task, assigned: held.Assignments) -> observed.Desired:
    """Somebody has moved the field into the revision, and forgets to read it there."""
    return dataclasses.replace(_right_desired(task, assigned), images={})


def _endless(template: pb.TaskTemplate) -> demand.Demand:
    return dataclasses.replace(_right_demand(template), pids=0, disk=0)


_right_demand = demand.of
_right_desired = worker._desired
_right_next_batch = outbox.Outbox.next_batch

REST = frozenset({"whole at rest"})
LOST = frozenset({"nothing is lost"})

PLANTS = (
    Plant(
        name="an old report lets a state fall",
        bug=instead(reports, "accept", _accept_whatever_comes),
        caught_by=frozenset({"states rise"}),
        hint=5,
    ),
    Plant(
        name="the leader writes without its fence",
        bug=instead(writer, "write", _write_without_fence),
        caught_by=frozenset({"one writer"}),
        hint=21,
    ),
    Plant(
        name="the scheduler looks at a node once for many tasks",
        bug=instead(filters, "room", _room_of_a_node_that_is_empty),
        caught_by=frozenset({"capacity", "nothing is given twice"}),
        hint=6,
    ),
    Plant(
        name="what was granted before is free again",
        bug=instead(fleet._Booking, "_remove_granted", lambda _: None),
        caught_by=frozenset({"nothing is given twice"}),
        hint=5,
    ),
    Plant(
        name="the parts of a spread are counted once for many tasks",
        bug=instead(choosing._Tie, "take", lambda *_: False),
        caught_by=frozenset({"placement"}),
        hint=2,
    ),
    Plant(
        name="taints keep only those away that tolerate them",
        bug=instead(filters, "_refuses", lambda taint, ask: stands(ask.tolerations, taint)),
        caught_by=frozenset({"placement", "pace"}) | REST,
        hint=99,
    ),
    Plant(
        name="others make way for a task of the same priority",
        bug=instead(preemption.Preemption, "_may_go", lambda *_: True),
        caught_by=frozenset({"placement", "pace", "idle is idle"}),
        hint=5,
    ),
    Plant(
        name="a stopping task does not hold its slot",
        bug=instead(tasks, "holds_its_slot", lambda _: False),
        caught_by=frozenset({"one task a slot"}),
        hint=9,
    ),
    Plant(
        name="a loop forgets its keys after a conflict",
        bug=instead(loop.Loop, "run", _run_and_forget_keys),
        caught_by=REST,
        hint=71,
    ),
    Plant(
        name="a slot is refilled without a pause",
        bug=instead(slots, "ready_at", lambda *_: 0),
        caught_by=frozenset({"pace"}),
        hint=14,
    ),
    Plant(
        name="an old task goes before the new one works",
        bug=instead(replacing.Course, "_kept", rollout_plants.keep_no_old),
        caught_by=LOST,
        hint=17,
    ),
    Plant(
        name="more is begun at a time than was allowed",
        bug=instead(replacing.Course, "_take", rollout_plants.count_nothing_beside),
        caught_by=frozenset({"no more at a time"}),
        hint=17,
    ),
    Plant(
        name="what was paused goes on",
        bug=instead(replacing.Course, "stands_still", property(rollout_plants.never_stand_still)),
        caught_by=frozenset({"paused is paused"}),
        hint=52,
    ),
    Plant(
        name="what was rolled back is tried again",
        bug=instead(rollout, "follow", rollout_plants.begin_again),
        caught_by=frozenset({"rollouts go one way"}),
        hint=23,
    ),
    Plant(
        name="a refused revision is made all the same",
        bug=instead(rollout, "goal_id", rollout_plants.goal_of_the_spec),
        caught_by=frozenset({"what was refused stays refused", "life goes on"}),
        hint=47,
    ),
    Plant(
        name="every node gets the first subnet",
        bug=instead(addresses.Pool, "take", lambda self: self._parts.text(0)),
        caught_by=frozenset({"nothing is given twice"}),
        hint=1,
    ),
    Plant(
        name="processes and disk are given out as often as somebody asks",
        bug=instead(demand, "of", _endless),
        caught_by=frozenset({"capacity"}),
        hint=40_113,
    ),
    Plant(
        name="garbage collection does not wait for the end",
        bug=instead(garbage, "_doomed", _doomed_when_unwanted),
        caught_by=frozenset({"the living stay"}),
        hint=3,
    ),
    Plant(
        name="a task is let go before the nodes have heard that it leaves",
        bug=instead(withdrawal, "decide", _let_go_at_once),
        caught_by=frozenset({"let go last"}),
        hint=1,
    ),
    Plant(
        name="a node whose agent is away is not waited for",
        bug=instead(withdrawals.Withdrawals, "_sending_nodes", _ready_nodes),
        caught_by=frozenset({"let go last"}),
        hint=2,
    ),
    Plant(
        name="the lowest free address is given, whoever had it a moment ago",
        bug=instead(addresses.Pool, "_first_after", lambda *_: 0),
        caught_by=frozenset({"an address rests"}),
        hint=9,
    ),
    Plant(
        name="the cache misses deletions after a compaction",
        bug=instead(snapshots.Editor, "present_keys", lambda _: []),
        caught_by=frozenset({"whole at rest", "idle is idle"}),
        hint=24,
    ),
    Plant(
        name="old events are never cleared away",
        bug=instead(events, "trim", lambda *_: ()),
        caught_by=frozenset({"whole at rest", "events are bounded"}),
        hint=1,
    ),
    Plant(
        name="events are told as events",
        bug=instead(recording.Events, "_note_event", _tell_of_events),
        caught_by=frozenset({"idle is idle", "events hold up nothing", "life goes on"}),
        hint=1,
    ),
    Plant(
        name="what people do is not told",
        bug=instead(changing, "_fitting", lambda *_: ()),
        caught_by=frozenset({"told with the change"}),
        hint=1,
    ),
    Plant(
        name="a prune takes what is in no stack",
        bug=instead(prune, "missing", _missing_in_the_namespace),
        caught_by=frozenset({"only a stack is pruned"}),
        hint=5,
    ),
    Plant(
        name="the agent takes assignments over a gap",
        bug=instead(held, "apply", _apply_over_gaps),
        caught_by=REST | {"no doubles"},
        hint=3,
    ),
    Plant(
        name="the agent counts assignments on from the last session",
        bug=instead(held, "of_new_session", lambda current: current),
        caught_by=REST | {"no doubles"},
        hint=2,
    ),
    Plant(
        name="the agent does not tell a new leader everything",
        bug=instead(outbox.Outbox, "begin", _begin_with_nothing),
        caught_by=REST,
        hint=21,
    ),
    Plant(
        name="the agent forgets what was not acknowledged",
        bug=instead(outbox.Outbox, "next_batch", _next_batch_once),
        caught_by=REST,
        hint=22,
    ),
    Plant(
        name="connections are not drained",
        bug=instead(stopping, "drain", _drain_nothing),
        caught_by=frozenset({"drained before stopped"}),
        hint=1,
    ),
    Plant(
        name="a container is ready before it has answered",
        bug=instead(probes, "decide_ready", lambda _: False),
        caught_by=frozenset({"the ready have answered"}),
        hint=24,
    ),
    Plant(
        name="the agent starts without looking at what runs",
        bug=instead(worker.Worker, "_restore", _restore_nothing),
        caught_by=REST | {"no doubles", "no error is logged"},
        hint=5,
    ),
    Plant(
        name="the agent takes what a name means instead of what was settled",
        bug=instead(worker, "_desired", _desired_by_name),
        caught_by=REST,
        hint=4,
    ),
    *CROWD_PLANTS,
    *BRAKE_PLANTS,
    *DISRUPTION_PLANTS,
    *FENCE_PLANTS,
    *ABSENCE_PLANTS,
    *STOCK_PLANTS,
    *PARTICULAR_PLANTS,
)
