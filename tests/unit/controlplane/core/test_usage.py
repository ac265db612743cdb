"""Counters of nodes under the names that people know."""

from controlplane.core import usage
from protos import traffic
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

NODE = pb.Node(meta=pb.Meta(id="id1", name="n1"))
WEB = wire.NetworkService(
    namespace="shop",
    name="web",
    address="10.201.0.1",
    ports=[pb.Port(target=80, published=8080), pb.Port(target=53, published=53, protocol=pb.PROTOCOL_UDP)],
    endpoints=[wire.Endpoint(address="10.112.1.2", ready=True)],
)


def counter(key: str, connections: int, **more: int) -> wire.TrafficCounter:
    return wire.TrafficCounter(key=key, connections=connections, **more)  # type: ignore[arg-type]


def test_a_service_is_its_address_its_ports_and_its_tasks() -> None:
    """What nobody has any more is left out."""
    counters = wire.NodeCounters(
        traffic=[
            counter("10.201.0.1", 4, packets=9, bytes=900),
            counter("tcp 8080", 2, bytes=50),
            counter("udp 53", 1),
            counter("tcp 53", 100),
            counter("10.112.1.2", 0, refused=3),
            counter("10.201.0.9", 7),
        ]
    )
    named = usage.named(counters, NODE, traffic.owners([WEB]), {})
    assert named.node == "n1"
    assert list(named.services) == [
        api.ServiceTraffic(namespace="shop", service="web", connections=7, refused=3, packets=9, bytes=950)
    ]


def test_addresses_of_both_families_are_summed() -> None:
    """Of the service and of its tasks."""
    both = wire.NetworkService()
    both.CopyFrom(WEB)
    both.address6, both.endpoints[0].address6 = "fd00:201::1", "fd00:112:0:1::2"
    counters = wire.NodeCounters(
        traffic=[
            counter("10.201.0.1", 4, bytes=900),
            counter("fd00:201::1", 2, bytes=90),
            counter("10.112.1.2", 0, refused=3),
            counter("fd00:112:0:1::2", 0, refused=1),
        ]
    )
    assert list(usage.named(counters, NODE, traffic.owners([both]), {}).services) == [
        api.ServiceTraffic(namespace="shop", service="web", connections=6, refused=4, bytes=990)
    ]
    assert "" not in traffic.owners([wire.NetworkService(namespace="shop", name="headless")])


def test_a_task_has_its_name() -> None:
    """One that the leader does not know keeps its id."""
    counters = wire.NodeCounters(usage=api.NodeUsage(tasks=[api.TaskUsage(task_id="t1"), api.TaskUsage(task_id="t2")]))
    task = pb.Task(meta=pb.Meta(id="t1", name="web-1-abc", namespace="shop"), service="web")
    first, second = usage.named(counters, NODE, {}, {"t1": task}).tasks
    assert (first.name, first.namespace, first.service) == ("web-1-abc", "shop", "web")
    assert (second.task_id, second.name) == ("t2", "")
