"""What is looked up when somebody reads an agent's metrics: its tasks, what they use, what services carry, its disk.

The rule: nothing runs here between two readings. The kernel counts all the time.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric

from agent import ports
from agent.errors import NoSuchTask
from agent.rpc import Server
from agent.session import Session
from agent.worker import Worker
from images.store import ImageStore
from protos import schema, traffic
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from telemetry.metrics import Look, Reading

_TASK: Final = ("namespace", "service", "task")
_SERVICE: Final = ("namespace", "service")

TASKS: Final = Look(name="orch_node_tasks", text="Tasks of this node, by state", labels=("state",))
SESSION: Final = Look(name="orch_node_session", text="1: the agent holds a session with the leader")
CPU: Final = Look(name="orch_node_cpu_seconds_total", text="How long the processors of the machine were busy, together")
MEMORY: Final = Look(name="orch_node_memory_bytes", text="Memory of the machine that is in use")
MEMORY_TOTAL: Final = Look(name="orch_node_memory_total_bytes", text="All of its memory")
DISK_FREE: Final = Look(name="orch_node_disk_free_bytes", text="What is free on the disk that images and tasks are on")
DISK_TOTAL: Final = Look(name="orch_node_disk_total_bytes", text="All of that disk")
IMAGES: Final = Look(
    name="orch_image_store_bytes", text="What the blobs of images take on the disk, without unpacked layers"
)
CERTIFICATE: Final = Look(
    name="orch_certificate_expiry_timestamp_seconds", text="When the certificate of this node expires"
)

TASK_CPU: Final = Look(name="orch_task_cpu_seconds_total", text="Processor time of a task's containers", labels=_TASK)
TASK_MEMORY: Final = Look(name="orch_task_memory_bytes", text="Memory of a task's containers", labels=_TASK)
TASK_PROCESSES: Final = Look(
    name="orch_task_processes", text="Processes and threads of a task's containers", labels=_TASK
)

CONNECTIONS: Final = Look(
    name="orch_service_connections_total",
    text="Connections, or flows of UDP, that were begun from or through this node to a service",
    labels=_SERVICE,
)
REFUSED: Final = Look(
    name="orch_service_refused_total", text="Attempts to reach a service that this node has refused", labels=_SERVICE
)
PACKETS: Final = Look(
    name="orch_service_packets_total",
    text="Packets of a service in both directions, forwarded by this node",
    labels=_SERVICE,
)
BYTES: Final = Look(name="orch_service_bytes_total", text="Their bytes", labels=_SERVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is looked at."""

    worker: Worker
    session: Session
    meter: ports.Meter
    images: ImageStore
    server: Server

    def add(self, reading: Reading) -> None:
        """Has all of this looked up at every reading."""
        reading.look_up("state", self._state)
        reading.look_up("usage", self._usage)
        reading.look_up("traffic", self._traffic)
        reading.look_up("disk", self._disk)

    async def _state(self) -> Iterable[Metric]:
        counts = Counter(one.record.state for one in self.worker.observed.values())
        words = schema.enum_words(pb.TaskState.DESCRIPTOR)
        own = self.server.own
        return [
            TASKS.of({(word,): counts[pb.TaskState.ValueType(number)] for word, number in words.items()}),
            SESSION.of(self.session.connected.is_set()),
            *([CERTIFICATE.of(own.facts.not_after_ms / 1000)] if own is not None else []),
        ]

    async def _usage(self) -> Iterable[Metric]:
        usage = (await self.meter.read(dpb.NodeUsageRequest(tasks=True))).usage
        by_name = {name: one for one in usage.tasks if (name := self._name(one.task_id)) is not None}
        return [
            CPU.of(usage.cpu_ns / 1e9),
            MEMORY.of(usage.memory),
            MEMORY_TOTAL.of(usage.memory_total),
            *_used(by_name),
        ]

    def _name(self, task_id: str) -> tuple[str, str, str] | None:
        """None: it has gone meanwhile."""
        try:
            task = self.worker.task(task_id)
        except NoSuchTask:
            return None
        return task.meta.namespace, task.service, task.meta.name

    async def _traffic(self) -> Iterable[Metric]:
        counters = await self.meter.read(dpb.NodeUsageRequest(services=True))
        return carried(counters.traffic, traffic.owners(self.worker.services.values()))

    async def _disk(self) -> Iterable[Metric]:
        disk, size_bytes = self.images.disk(), await asyncio.to_thread(self.images.used_bytes)
        return [DISK_FREE.of(disk.free_bytes), DISK_TOTAL.of(disk.total_bytes), IMAGES.of(size_bytes)]


def _used(tasks: Mapping[tuple[str, str, str], cpb.TaskUsage]) -> Iterable[Metric]:
    yield TASK_CPU.of({name: one.cpu_ns / 1e9 for name, one in tasks.items()})
    yield TASK_MEMORY.of({name: one.memory for name, one in tasks.items()})
    yield TASK_PROCESSES.of({name: one.processes for name, one in tasks.items()})


def carried(counters: Iterable[dpb.TrafficCounter], owners: Mapping[str, traffic.Name]) -> Iterable[Metric]:
    """The sums over each service's addresses, published ports and tasks."""
    fields = {CONNECTIONS: "connections", REFUSED: "refused", PACKETS: "packets", BYTES: "bytes"}
    sums: dict[Look, dict[tuple[str, ...], float]] = {look: defaultdict(float) for look in fields}
    for counter in counters:
        if (name := owners.get(counter.key)) is not None:
            for look, field in fields.items():
                sums[look][name] += getattr(counter, field)
    return [look.of(values) for look, values in sums.items()]
