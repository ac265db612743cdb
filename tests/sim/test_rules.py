"""The rules of the simulation on histories that they once took for faults, and on those that are."""

import asyncio
import contextlib
import random

import pytest

from controlplane.core import leaving
from controlplane.store import api
from protos import kinds, states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import zones
from tests.sim.net import End, Network
from tests.sim.network_rules import BOUND_S, NetworkRules
from tests.sim.rules import Rules
from tests.sim.story import Story
from tests.sim.violation import Violation
from tests.support import build, fake_agent
from tests.support.aio import bounded

virtual = bounded(600, virtual_time=True)
FENCE = api.Fence(key="/orch/leader", version=1)


class History:
    """Writes, one after the other, under the rules of every commit."""

    def __init__(self, *, spreads: bool = True) -> None:
        self.rules = Rules(Story(), spreads=spreads)
        self._revision = 0

    def write(self, value: kinds.StoredObject) -> None:
        self._revision += 1
        event = api.Event(key=kinds.key(value), value=value.SerializeToString(), version=self._revision)
        self.rules.check(self._revision, [event], FENCE)


def served(state: states.State, desired: pb.DesiredState.ValueType) -> pb.Task:
    return build.task(1, state, ident="web-1-a", desired=desired, created_at=1)


def begun() -> History:
    """A service whose connections have two seconds."""
    history = History()
    service = build.service()
    service.spec.template.drain_seconds = 2
    service.spec.template.container.ports.add(target=80)
    history.write(build.revision(service))
    return history


@virtual
async def test_a_task_that_was_told_to_stop_before_it_ran_is_not_told_again_by_the_loss_of_its_node() -> None:
    """It drained long ago, where nobody could hear of it."""
    history = begun()
    history.write(served(states.ASSIGNED, pb.DESIRED_STATE_RUNNING))
    history.write(served(states.ASSIGNED, pb.DESIRED_STATE_SHUTDOWN))
    history.write(served(states.RUNNING, pb.DESIRED_STATE_SHUTDOWN))
    await asyncio.sleep(20)
    history.write(served(states.ORPHANED, pb.DESIRED_STATE_SHUTDOWN))
    history.rules.check_stops([("web-1-a", asyncio.get_running_loop().time())])


@virtual
async def test_a_signal_in_the_middle_of_draining_is_found() -> None:
    history = begun()
    history.write(served(states.RUNNING, pb.DESIRED_STATE_RUNNING))
    await asyncio.sleep(20)
    history.write(served(states.RUNNING, pb.DESIRED_STATE_SHUTDOWN))
    await asyncio.sleep(1.5)
    with pytest.raises(Violation, match=r"1\.5 s later"):
        history.rules.check_stops([("web-1-a", asyncio.get_running_loop().time())])


class Told:
    """What a leader tells the node n2, which has applied that it sends connections to web-1-a."""

    def __init__(self) -> None:
        self.rules = NetworkRules()
        network = Network(random.Random(1), self.rules)
        self.leader, _ = End(network, "cp1", "n2"), End(network, "n2", "cp1")
        self.node(pb.NODE_STATE_READY)
        ready = wire.NetworkService(id="s1", endpoints=[wire.Endpoint(task_id="web-1-a", ready=True)])
        self.assign(wire.Assignment(type=wire.Assignment.TYPE_COMPLETE, results_in=1, services=[ready]))
        self.rules.arrived(self.leader, wire.AgentMessage(network_applied=wire.NetworkApplied(sequence=1)))

    def node(self, state: pb.NodeState.ValueType) -> None:
        self.rules.note(None, build.node("n2", state=state))

    def assign(self, assignment: wire.Assignment) -> None:
        self.rules.sent(self.leader, wire.LeaderMessage(assignment=assignment))

    def stop(self) -> None:
        self.rules.note(None, served(states.RUNNING, pb.DESIRED_STATE_SHUTDOWN))

    def let_go(self) -> None:
        self.assign(wire.Assignment(type=wire.Assignment.TYPE_INCREMENTAL, results_in=2, withdrawn_tasks=["web-1-a"]))


@pytest.mark.parametrize("away_s", [0.0, BOUND_S - 0.1])
@virtual
async def test_a_node_that_has_just_been_lost_is_waited_for(away_s: float) -> None:
    told = Told()
    told.node(pb.NODE_STATE_DISCONNECTED)
    await asyncio.sleep(away_s)
    told.stop()
    with pytest.raises(Violation, match="let go last"):
        told.let_go()


@pytest.mark.parametrize("state", [pb.NODE_STATE_DISCONNECTED, pb.NODE_STATE_DOWN])
@virtual
async def test_what_was_let_go_while_a_node_was_given_up_may_be_told_to_it_when_it_is_back(
    state: pb.NodeState.ValueType,
) -> None:
    """And what is stopped after that waits for it again."""
    told = Told()
    told.node(state)
    await asyncio.sleep(BOUND_S + 0.1)
    told.stop()
    await asyncio.sleep(1)
    told.node(pb.NODE_STATE_READY)
    told.let_go()
    back = Told()
    back.node(state)
    await asyncio.sleep(BOUND_S + 0.1)
    back.node(pb.NODE_STATE_READY)
    await asyncio.sleep(0.1)
    back.stop()
    with pytest.raises(Violation, match="let go last"):
        back.let_go()


@virtual
async def test_zones_are_what_the_nodes_say() -> None:
    """Two tasks in one zone and none in the other are found, whatever the nodes are called."""
    history = History()
    service = build.service()
    service.spec.template.placement.spread.add(by=zones.BY, max_skew=1)
    history.write(build.revision(service))
    for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "a")):
        node = build.node(name)
        node.meta.labels[zones.LABEL] = zone
        history.write(node)
    for slot in (1, 2):
        history.write(build.task(slot, states.PENDING, ident=f"web-{slot}-a"))
    history.write(build.task(1, states.ASSIGNED, ident="web-1-a", node="n1"))
    with pytest.raises(Violation, match="makes 2 in zone a; the emptiest has 0"):
        history.write(build.task(2, states.ASSIGNED, ident="web-2-a", node="n3"))
    history.write(build.task(2, states.ASSIGNED, ident="web-2-a", node="n2"))


@virtual
async def test_a_task_that_is_given_up_before_its_agent_is_late_is_found() -> None:
    """By the clock that was furthest ahead. A fenced one, and one whose agent was back in between, are no faults."""
    for ahead_ms, fence, is_back, wrong in (
        (0, 0, False, True),
        (3_000, 0, False, False),
        (0, 10_000, False, False),
        (0, 0, True, False),
    ):
        history = begun()
        history.rules.absences.note_clock(ahead_ms)
        for other in ("n2", "n3"):
            history.write(build.node(other))
        now_ms = fake_agent.loop_ms()
        away = build.node("n1", state=pb.NODE_STATE_DISCONNECTED, since=now_ms)
        away.status.expected_by = now_ms + 30_000
        task = served(states.RUNNING, pb.DESIRED_STATE_RUNNING)
        task.fence = fence
        history.write(task)
        history.write(away)
        await asyncio.sleep(28)
        if is_back:
            history.write(build.node("n1"))
            history.write(build.node("n1", state=pb.NODE_STATE_DISCONNECTED, since=now_ms + 28_000))
        task.status.state = states.ORPHANED
        with pytest.raises(Violation, match="2000 ms before") if wrong else contextlib.nullcontext():
            history.write(task)


def updated(update: pb.UpdatePolicy, second_on: str = "n1") -> tuple[History, list[pb.Task]]:
    """A service of two whose leader has seen a new template, and the old tasks, both of which work. n2 is drained."""
    history = History()
    service = build.service(replicas=2)
    service.spec.update.CopyFrom(update)
    service.status.observed_generation = 1
    old, new = build.revision(service), build.revision(service, 2, "other")
    service.status.rollout.CopyFrom(
        pb.RolloutStatus(state=pb.ROLLOUT_STATE_ROLLING, revision_id=new.meta.id, stable_revision_id=old.meta.id)
    )
    tasks = [build.task(slot, ident=f"web-{slot}-a", node=node) for slot, node in ((1, "n1"), (2, second_on))]
    for value in (build.node("n1"), build.node("n2", availability=pb.AVAILABILITY_DRAIN), old, new, service, *tasks):
        history.write(value)
    return history, tasks


def stop(history: History, task: pb.Task) -> None:
    task.desired_state = pb.DESIRED_STATE_SHUTDOWN
    history.write(task)


@virtual
async def test_an_update_that_takes_one_more_than_may_be_missing_is_found() -> None:
    """Where the node is drained, it is not the update that takes it."""
    for update, most in (
        (pb.UpdatePolicy(order=pb.UPDATE_ORDER_STOP_FIRST), 1),
        (pb.UpdatePolicy(max_unavailable="99%", max_surge="1"), 1),
        (pb.UpdatePolicy(max_unavailable="100%"), 2),
    ):
        history, tasks = updated(update)
        stop(history, tasks[0])
        with (
            pytest.raises(Violation, match="2 of 2 are missing then, 1 may be")
            if most == 1
            else contextlib.nullcontext()
        ):
            stop(history, tasks[1])
    history, tasks = updated(pb.UpdatePolicy(order=pb.UPDATE_ORDER_STOP_FIRST), second_on="n2")
    stop(history, tasks[0])
    stop(history, tasks[1])


@virtual
async def test_blue_that_goes_before_all_is_green_is_found() -> None:
    """One after the other it may go."""
    for parallelism, wrong in ((0, True), (2, False)):
        history, tasks = updated(pb.UpdatePolicy(parallelism=parallelism, order=pb.UPDATE_ORDER_START_FIRST))
        history.write(build.task(1, ident="web-1-b", revision_id="web-2-id-web", created_at=build.NOW_MS + 1))
        with pytest.raises(Violation, match=r"slots \[2\] have no new task") if wrong else contextlib.nullcontext():
            stop(history, tasks[0])


@virtual
async def test_two_that_have_to_be_apart_are_found_whoever_comes_second() -> None:
    """What people asked of one of them holds for both."""
    for first, second in (("web", "db"), ("db", "web")):
        history = History()
        web, db = build.service(), build.service("db")
        web.spec.template.placement.apart.add(service="db")
        tasks = {
            name: build.task(1, states.PENDING, of=name, revision_id=f"{name}-1-id-{name}") for name in ("web", "db")
        }
        for value in (build.node("n1"), build.revision(web), build.revision(db), *tasks.values()):
            history.write(value)
        for name in (first, second):
            tasks[name].node_id, tasks[name].status.state = "n1", states.ASSIGNED
        history.write(tasks[first])
        with pytest.raises(Violation, match="has to be apart"):
            history.write(tasks[second])


@virtual
async def test_a_move_too_many_within_a_minute_is_found() -> None:
    """One that a drain asked for counts, too; a person who wants it now may have it, and a minute later anybody."""
    for between_ms, asked_at, spreads, wrong in (
        (59_000, 0, True, True),
        (61_000, 0, True, False),
        (59_000, 1, True, False),
        (61_000, 0, False, True),
    ):
        history = History(spreads=spreads)
        service = build.service()
        service.spec.rebalance.max_moves_per_minute = 1
        service.spec.rebalance_asked_at = asked_at
        service.status.observed_generation = 1
        first = build.task(1, states.PENDING, ident="web-1-b")
        first.replaces, first.moved_because = "web-1-a", leaving.DRAINED
        second = build.task(2, states.PENDING, ident="web-2-b", created_at=build.NOW_MS + between_ms)
        second.replaces, second.moved_because = "web-2-a", "moves from n1"
        for value in (build.revision(service), service, first):
            history.write(value)
        with pytest.raises(Violation, match="few moves") if wrong else contextlib.nullcontext():
            history.write(second)
