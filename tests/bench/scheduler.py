"""The pure scheduler alone: how long it takes to give many tasks to many nodes, the changes of its plan included.

The figure is the processor's time that a decision takes: nothing is waited for, and others may use the
machine. The marks are 50,000 decisions a second with no wishes, 10,000 with any.

And how long it takes to find out for whom others make way: a pass that is one long step holds up the leader.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence

from controlplane.core import locality, scheduler
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.bench.measure import Case

NOW_MS = 1_700_000_000_000
SERVICES = 100
ZONES = 10
SIZES = ((1_000, 10_000), (1_000, 100_000), (5_000, 10_000), (5_000, 100_000))
"""Nodes and tasks."""
PLAIN_MARK_US, WISHES_MARK_US = 20.0, 100.0
URGENT = (1, 64)
"""Tasks that find 100 full nodes, and for each of which four have to stop."""
PREEMPTION_MARK_MS = 500.0

Wish = Callable[[pb.Placement, str], object]
WISHES: dict[str, Wish] = {
    "plain": lambda _placement, _name: None,
    "constraint": lambda placement, _name: placement.constraints.append("node.labels.zone in (z0, z1, z2, z3)"),
    "spread": lambda placement, _name: placement.spread.add(by="node.labels.zone", max_skew=1),
    "apart": lambda placement, name: placement.apart.add(service=name),
    "everything": lambda placement, name: (
        placement.constraints.append("node.labels.zone != z9"),
        placement.preferences.add(expression="node.labels.disk == ssd", weight=5),
        placement.spread.add(by="node.labels.zone", max_skew=2),
        placement.spread.add(by="node.name"),
        placement.apart.add(service=name, by="node.labels.zone", weight=2),
    ),
    "images": lambda _placement, _name: None,
}
"""With `images` it is known what every node has of them; nothing is wished for."""
IMAGE_LAYERS = 10


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """One for each size of cluster and each wish, and full clusters for those that others make way for."""
    placing = [_case(nodes, tasks, name) for nodes, tasks in SIZES for name in WISHES]
    yield [*placing, *map(_preemption_case, URGENT)]


def _preemption_case(urgent: int) -> Case:
    return Case(
        name=f"scheduler.preemption.100_nodes.6000_tasks.{urgent}_urgent",
        unit="ms",
        ours=lambda: preemption_ms(100, 60, urgent),
        peer=None,
        peer_name="-",
        rounds=3,
        mark=PREEMPTION_MARK_MS,
    )


def _case(nodes: int, tasks: int, wish: str) -> Case:
    return Case(
        name=f"scheduler.{nodes}_nodes.{tasks}_tasks.{wish}",
        unit="µs",
        ours=lambda: decision_us(nodes, tasks, WISHES[wish], stocked=wish == "images"),
        peer=None,
        peer_name="-",
        rounds=3,
        mark=PLAIN_MARK_US if wish == "plain" else WISHES_MARK_US,
    )


def decision_us(nodes: int, tasks: int, wish: Wish, *, stocked: bool = False) -> float:
    """Microseconds for each task that is given a node; all of them must be. `stocked`: nodes have images."""
    machines = [_node(number) for number in range(nodes)]
    templates = {f"s{number}": _template(f"s{number}", wish) for number in range(SERVICES)}
    waiting = [_task(f"s{number}", slot) for slot in range(tasks // SERVICES) for number in range(SERVICES)]
    rules = scheduler.Rules(stock=_stock(nodes) if stocked else locality.EMPTY)
    gc.collect()
    began = time.process_time()
    made = scheduler.schedule(machines, [], waiting, templates, NOW_MS, rules)
    took_s = time.process_time() - began
    assert len(made.changes) == tasks
    assert all(isinstance(change.value, pb.Task) and change.value.node_id for change in made.changes)
    return took_s / tasks * 1e6


def _stock(nodes: int) -> locality.Stock:
    """Every service has an image of ten layers, of which one is everybody's; two nodes of three have all of one."""
    holders, images = locality.Holders(), dict[str, pb.ImageStatus]()
    for number in range(SERVICES):
        layers = ["base", *(f"layer{number}.{each}" for each in range(1, IMAGE_LAYERS))]
        images[f"i{number}"] = pb.ImageStatus(blobs=[pb.ImageBlob(digest=one, size=2**25) for one in layers])
        for node in range(nodes):
            for layer in layers if (node + number) % 3 else ():
                holders.add(layer, f"id{node}")
    return locality.Stock(images_of={f"s{n}": (f"i{n}",) for n in range(SERVICES)}, images=images, holders=holders)


def preemption_ms(nodes: int, each: int, urgent: int) -> float:
    """Milliseconds for one pass over full nodes, on which four tasks stop for each urgent one."""
    services = [f"s{number}" for number in range(10)]
    machines, templates = [_node(number) for number in range(nodes)], {name: _template(name) for name in services}
    placed = [_running(services[slot % 10], slot, machines[slot % nodes].meta.id) for slot in range(nodes * each)]
    for machine in machines:
        machine.status.description.capacity.cpu = each * 50
    templates["urgent"] = _template("urgent", cpu=200)
    known = {("default", name): _service(name, priority=int(name == "urgent")) for name in templates}
    waiting = [_task("urgent", slot) for slot in range(urgent)]
    gc.collect()
    began = time.process_time()
    made = scheduler.schedule(machines, placed, waiting, templates, NOW_MS, scheduler.Rules(services=known))
    took_s = time.process_time() - began
    changed = [change.value for change in made.changes if isinstance(change.value, pb.Task)]
    assert sum(one.desired_state == pb.DESIRED_STATE_SHUTDOWN for one in changed) == 4 * urgent
    return took_s * 1e3


def _service(name: str, *, priority: int) -> pb.Service:
    disruption = pb.DisruptionPolicy(max_unavailable="100%")
    spec = pb.ServiceSpec(priority=priority, replicas=10_000, disruption=disruption)
    return pb.Service(meta=pb.Meta(id=name, name=name, namespace="default"), spec=spec)


def _running(service: str, slot: int, node_id: str) -> pb.Task:
    task = _task(service, slot)
    task.node_id = node_id
    task.status.CopyFrom(pb.TaskStatus(state=states.RUNNING, ready=True, at=NOW_MS))
    return task


def _node(number: int) -> pb.Node:
    labels = {"zone": f"z{number % ZONES}", "disk": "ssd" if number % 3 else "hdd"}
    capacity = pb.NodeCapacity(cpu=64_000, memory=2**38, tasks=500)
    return pb.Node(
        meta=pb.Meta(id=f"id{number}", name=f"n{number:05d}", labels=labels),
        spec=pb.NodeSpec(availability=pb.AVAILABILITY_ACTIVE),
        status=pb.NodeStatus(state=pb.NODE_STATE_READY, description=pb.NodeDescription(capacity=capacity)),
    )


def _template(name: str, wish: Wish = WISHES["plain"], *, cpu: int = 50) -> pb.TaskTemplate:
    template = pb.TaskTemplate(container=pb.Container(image="hello"))
    template.container.resources.reservations.cpu = cpu
    template.container.resources.reservations.memory = 2**24
    wish(template.placement, name)
    return template


def _task(service: str, slot: int) -> pb.Task:
    name = f"{service}-{slot}-abcdefgh"
    return pb.Task(
        meta=pb.Meta(id=name, name=name, namespace="default", generation=1, created_at=NOW_MS, updated_at=NOW_MS),
        service=service,
        revision_id=service,
        slot=slot,
        desired_state=pb.DESIRED_STATE_RUNNING,
        status=pb.TaskStatus(state=states.NEW, at=NOW_MS),
    )
