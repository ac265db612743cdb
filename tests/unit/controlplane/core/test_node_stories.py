"""Services while nodes come, go and are taken out of use, and services that need each other: to be read as transcripts,
and as whatever may become of nodes in any order.
"""

from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import plan, tasks
from protos import losses, states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build, golden
from tests.support.clusters import Cluster

HERE = Path(__file__).parent / "stories"
ACTIVE, PAUSE, DRAIN = pb.AVAILABILITY_ACTIVE, pb.AVAILABILITY_PAUSE, pb.AVAILABILITY_DRAIN
COMPLETED, READY, STARTED = (
    pb.DEPENDENCY_CONDITION_COMPLETED,
    pb.DEPENDENCY_CONDITION_READY,
    pb.DEPENDENCY_CONDITION_STARTED,
)


def check(name: str, world: Cluster) -> None:
    """What people do, and what becomes of nodes, begins a paragraph. At the end nothing is left to do."""
    assert world.look() == plan.NOTHING
    lines = [line if line[0].isdigit() else f"\n{line}" for line in world.transcript]
    golden.check(HERE / f"{name}.txt", "\n".join(lines).lstrip() + "\n")


def web(replicas: int = 0, **spec: object) -> pb.Service:
    """A service whose updates are over as soon as they are done. `spec`: fields of it."""
    service = build.service(replicas=replicas, image="good:1")
    service.spec.MergeFrom(pb.ServiceSpec(update=pb.UpdatePolicy(monitor=1), **spec))  # type: ignore[arg-type]  # fields by name
    return service


def test_transcript_of_a_global_service() -> None:
    """It is where nodes are that it is for, through whatever becomes of them."""
    service = web(mode=pb.SERVICE_MODE_GLOBAL)
    service.spec.update.parallelism = 2
    service.spec.template.placement.constraints.append("node.labels.disk != full")
    world = Cluster(service)
    world.steps(2)
    world.connect("n4")
    world.steps(2)
    world.label("n2", disk="full")
    world.steps(2)
    world.label("n2", disk="empty")
    world.steps(2)
    world.set_availability("n1", DRAIN)
    world.steps(2)
    world.set_availability("n1", ACTIVE)
    world.steps(2)
    world.apply("good:2")
    world.steps(6)
    check("global", world)


def test_transcript_of_a_drain_under_a_disruption_limit() -> None:
    """No two may stand in a slot, and three of four have to work: one leaves after another."""
    service = web(4, disruption=pb.DisruptionPolicy(min_available="3"))
    service.spec.update.order = pb.UPDATE_ORDER_STOP_FIRST
    world = Cluster(service)
    world.steps(2)
    world.set_availability("n1", DRAIN)
    world.steps(8)
    assert world.homes() == ["n2", "n2", "n3", "n3"]
    check("drain", world)


def test_transcript_of_a_node_that_is_lost_and_comes_back() -> None:
    """What is back in time is found as it was. What is not is replaced, and spread again once the node stays."""
    world = Cluster(web(3, on_node_loss=pb.NodeLossPolicy(replace_after=8_000)))
    world.steps(2)
    world.lose("n3")
    world.steps(4)
    world.connect("n3")
    world.steps(4)
    world.lose("n3")
    world.steps(12)
    assert "n3" not in world.homes()
    world.connect("n3")
    world.steps(20)
    assert world.homes() == ["n1", "n2", "n3"]
    check("lost", world)


def test_transcript_of_a_node_that_gets_its_share() -> None:
    """One task moves a minute, the new one first; and when it is spread, none."""
    world = Cluster(web(6, rebalance=pb.RebalancePolicy(max_moves_per_minute=1)), joined=["n1", "n2"])
    world.steps(2)
    world.connect("n3")
    world.steps(150)
    assert world.homes() == ["n1", "n1", "n2", "n2", "n3", "n3"]
    check("rebalancing", world)


def test_transcript_of_services_that_need_each_other() -> None:
    """Whatever is needed comes first and goes last, though all are asked for, and deleted, at once."""
    uses = {"web": {"api": STARTED}, "api": {"migration": COMPLETED, "db": READY}, "migration": {"db": READY}, "db": {}}
    services = [build.service(name, 1, "job:1" if name == "migration" else "good:1") for name in uses]
    for service in services:
        service.spec.depends_on.update(uses[service.meta.name])
        service.spec.template.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
    world = Cluster(*services, joined=["n1"])
    world.steps(8)
    world.delete(*uses)
    world.steps(8)
    assert not world.shelf.all(pb.Service)
    check("dependencies", world)


NAMES = ["n1", "n2", "n3", "n4"]
CHANGES = st.tuples(
    st.sampled_from(
        ["connect", "connect", "lose", "remove", "activate", "pause", "drain", "fill", "empty", "apply", "apply"]
    ),
    st.sampled_from(NAMES),
    st.sampled_from([0, 0, 1, 1, 6]),
)


def change(world: Cluster, what: str, name: str) -> None:
    """What may become of a node; what makes no sense does not happen."""
    match what:
        case "connect" if not world.is_connected(name):
            world.connect(name)
        case "lose" if world.is_connected(name):
            world.lose(name)
        case "apply":
            world.apply(f"good:{world.service.meta.generation + 1}")
        case _ if name not in world.nodes:
            pass
        case "remove" if world.nodes[name].status.state == pb.NODE_STATE_DOWN:
            world.remove(name)
        case "fill" | "empty":
            world.label(name, disk=what)
        case "activate" | "pause" | "drain":
            world.set_availability(name, {"activate": ACTIVE, "pause": PAUSE, "drain": DRAIN}[what])
        case _:
            pass


def check_whole(world: Cluster) -> None:
    """One good task on each node that the service is for; of what a node may keep, nothing is asked but that."""
    there: dict[str, list[pb.Task]] = {name: [] for name in NAMES}
    for task in world.unended:
        there[task.target_node_id].append(task)
    kept = sum(any(map(tasks.is_live, members)) for members in there.values())
    assert world.service.status.replicas == kept, "\n".join(world.transcript[-60:])
    for name, members in there.items():
        node = world.nodes.get(name)
        story = "\n".join([f"{name}: {[task.meta.name for task in members]}", *world.transcript[-60:]])
        if node is None:
            assert not members, story
        elif losses.is_lost(node):
            assert not members or node.status.held, story
        elif node.spec.availability == DRAIN or node.meta.labels.get("disk") == "fill":
            assert not members, story
        elif node.spec.availability == PAUSE:
            assert all(map(tasks.is_ready, members)), story
            assert max(Counter(task.revision_id for task in members).values(), default=1) == 1, story
        else:
            assert [tasks.is_ready(task) and task.node_id == name for task in members] == [True], story
            assert members[0].revision_id == world.service.status.revision_id, story


def cut_off(world: Cluster) -> set[str]:
    """Nodes that are out of reach and have a task that is to stay."""
    live = filter(tasks.is_live, world.unended)
    return {task.node_id for task in live if task.node_id and not world.is_connected(task.node_id)}


def step(world: Cluster) -> None:
    """What is out of reach has a task that is to stay until all that it has is given up."""
    before = cut_off(world)
    world.step()
    told = (before - cut_off(world)) & {task.node_id for task in world.unended}
    assert not told, "\n".join([f"tasks on {told} are told to stop", *world.transcript[-40:]])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(CHANGES, min_size=8, max_size=20),
    st.sampled_from([pb.UPDATE_ORDER_START_FIRST, pb.UPDATE_ORDER_STOP_FIRST]),
)
def test_whatever_becomes_of_nodes_a_global_service_is_where_it_is_meant_to_be(
    changes: list[tuple[str, str, int]], order: pb.UpdateOrder.ValueType
) -> None:
    """Once nothing happens any more."""
    service = web(mode=pb.SERVICE_MODE_GLOBAL)
    service.spec.update.order = order
    service.spec.template.placement.constraints.append("node.labels.disk != fill")
    world = Cluster(service)
    world.step()
    for what, name, steps in changes:
        change(world, what, name)
        for _ in range(steps):
            step(world)
    world.steps(25)
    check_whole(world)
    assert world.look() == plan.NOTHING


# How many of so many tasks have to work, by what a service says of it.
LIMITS = {
    "": lambda replicas: replicas - 1,
    "max 0": lambda replicas: replicas,
    "max 2": lambda replicas: replicas - 2,
    "max 50%": lambda replicas: replicas - replicas // 2,
    "min 1": lambda _: 1,
    "min 75%": lambda replicas: -(-3 * replicas // 4),
    "min 100%": lambda replicas: replicas,
}


def limited(replicas: int, limit: str, order: pb.UpdateOrder.ValueType) -> pb.Service:
    """A service whose tasks work when they are made to."""
    what, _, amount = limit.partition(" ")
    policy = pb.DisruptionPolicy(**{{"min": "min_available", "max": "max_unavailable"}[what]: amount} if what else {})
    service = web(replicas, disruption=policy)
    service.spec.update.order = order
    service.spec.template.container.image = "slow:1"
    return service


def work(world: Cluster, most: int = 100) -> None:
    """Some of the tasks that run begin to work."""
    coming = [one for one in world.unended if one.status.state == states.RUNNING and tasks.is_live(one)]
    for task in [one for one in coming if not one.status.ready][:most]:
        world.make_ready(task)


def check_working(world: Cluster, least: int) -> None:
    places = {task.slot for task in world.tasks if tasks.is_ready(task)}
    assert len(places) >= least, "\n".join([f"{len(places)} work, {least} have to", *world.transcript[-40:]])


def check_drained(world: Cluster, replicas: int) -> None:
    story = "\n".join(world.transcript[-40:])
    assert len(world.homes()) == replicas, story
    for node in world.nodes.values():
        if node.spec.availability == DRAIN:
            assert node.status.drain.left == 0, story
            assert node.meta.name not in {task.node_id for task in world.unended}, story


@settings(max_examples=30, deadline=None)
@given(
    replicas=st.integers(1, 6),
    room=st.integers(2, 4),
    limit=st.sampled_from(list(LIMITS)),
    order=st.sampled_from([pb.UPDATE_ORDER_START_FIRST, pb.UPDATE_ORDER_STOP_FIRST]),
    changes=st.lists(
        st.tuples(
            st.sampled_from(NAMES[:3]), st.sampled_from([ACTIVE, DRAIN, DRAIN]), st.integers(0, 2), st.integers(0, 3)
        ),
        min_size=2,
        max_size=8,
    ),
)
def test_a_drain_heeds_what_a_service_can_do_without_and_ends_where_others_have_room(
    replicas: int,
    room: int,
    limit: str,
    order: pb.UpdateOrder.ValueType,
    changes: list[tuple[str, pb.Availability.ValueType, int, int]],
) -> None:
    """However long new tasks take to work, and however many nodes are drained and taken back at a time. What starts
    first is never missed at all.
    """
    least = LIMITS[limit](replicas) if order == pb.UPDATE_ORDER_STOP_FIRST else replicas
    world = Cluster(limited(replicas, limit, order), room=room)
    world.step()
    work(world)
    for name, availability, steps, working in changes:
        world.set_availability(name, availability)
        for _ in range(steps):
            world.step()
            check_working(world, least)
            work(world, working)
    for _ in range(30):
        world.step()
        check_working(world, least)
        work(world)
    open_nodes = sum(node.spec.availability != DRAIN for node in world.nodes.values())
    if open_nodes * room >= replicas and (order == pb.UPDATE_ORDER_START_FIRST or least < replicas):
        check_drained(world, replicas)
