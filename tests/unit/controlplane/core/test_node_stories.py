"""Services while nodes come, go and are taken out of use, and services that need each other: transcripts to be read."""

from pathlib import Path

from controlplane.core import plan
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build, golden
from tests.support.clusters import Cluster

HERE = Path(__file__).parent / "stories"
ACTIVE, DRAIN = pb.AVAILABILITY_ACTIVE, pb.AVAILABILITY_DRAIN
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
