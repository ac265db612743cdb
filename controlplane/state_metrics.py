"""What is looked up when somebody reads an instance's metrics: the state of the cluster, of etcd, and of its images.

The rule: everything comes from what the instance knows anyway, but for one question to each of etcd's members. A state
that nothing is in is told as 0, so that an alarm on it works before the first time.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from prometheus_client import Metric

from controlplane import metrics
from controlplane.images.cluster import ClusterImages
from controlplane.instance import Instance
from controlplane.store.cache import Cache
from controlplane.store.condition import Member
from controlplane.store.snapshots import Change
from controlplane.trust import storecertificates
from controlplane.trust.standing import Standing
from protos import schema
from protos.orch.v1 import objects_pb2 as pb
from telemetry.metrics import Look, Reading, Values

TASKS: Final = Look(name="orch_tasks", text="Tasks, by state", labels=("state",))
READY: Final = Look(name="orch_tasks_ready", text="Tasks that get connections")
NODES: Final = Look(name="orch_nodes", text="Nodes, by state", labels=("state",))
SERVICES: Final = Look(
    name="orch_services", text="Services, by whether all that was asked for is there", labels=("settled",)
)
ROLLOUTS: Final = Look(name="orch_rollouts", text="Services, by the state of their last rollout", labels=("state",))
SESSIONS: Final = Look(name="orch_sessions", text="Agents that hold a session with this instance")
LEADS: Final = Look(name="orch_leader", text="1: this instance leads")
REVISION: Final = Look(name="orch_cache_revision", text="The store's revision that this instance has seen")
STALE: Final = Look(
    name="orch_cache_stale_seconds", text="For how long the store has not answered; -1: never since the start"
)
IMAGES: Final = Look(name="orch_image_store_bytes", text="What images take on the disk of this instance")
IMAGES_LIMIT: Final = Look(name="orch_image_store_limit_bytes", text="What they may take")
CERTIFICATE: Final = Look(
    name="orch_certificate_expiry_timestamp_seconds", text="When the certificate of this instance expires"
)
STORE_CERTIFICATE: Final = Look(
    name="orch_store_certificate_expiry_timestamp_seconds",
    text="When the certificates between this instance and the store expire: the instance's, and the member's beside it",
    labels=("of",),
)

ETCD_UP: Final = Look(name="orch_etcd_up", text="1: the member answers", labels=("member",))
ETCD_LEADER: Final = Look(
    name="orch_etcd_has_leader", text="1: the member knows a leader of its raft", labels=("member",)
)
ETCD_TERM: Final = Look(name="orch_etcd_raft_term", text="The term of the member's raft", labels=("member",))
ETCD_INDEX: Final = Look(name="orch_etcd_raft_index", text="The last entry of the member's raft", labels=("member",))
ETCD_SIZE: Final = Look(name="orch_etcd_size_bytes", text="The member's database on its disk", labels=("member",))
ETCD_USED: Final = Look(name="orch_etcd_used_bytes", text="What of that is in use", labels=("member",))


Condition: TypeAlias = Callable[[], Awaitable[Sequence[Member]]]
"""How etcd's members are."""


def add(reading: Reading, instance: Instance, images: ClusterImages, condition: Condition | None) -> None:
    """Has all of this looked up at every reading."""

    async def state() -> Iterable[Metric]:
        return _state(instance)

    async def disk() -> Iterable[Metric]:
        return [IMAGES.of(await images.used_bytes()), IMAGES_LIMIT.of(images.limit_bytes)]

    reading.look_up("state", state)
    reading.look_up("images", disk)
    if condition is not None:
        asked = condition

        async def etcd() -> Iterable[Metric]:
            return _etcd(await asked())

        reading.look_up("etcd", etcd)


def add_certificate(reading: Reading, trust: Standing) -> None:
    """Has it looked up until when the others believe this instance, and the store."""

    async def certificate() -> Iterable[Metric]:
        return [CERTIFICATE.of(trust.own.facts.not_after_ms / 1000)]

    async def store() -> Iterable[Metric]:
        words = {storecertificates.INSTANCE: "instance", storecertificates.MEMBER: "member"}
        found = trust.store_certificates()
        return [STORE_CERTIFICATE.of({(words[one.whose],): one.not_after_ms / 1000 for one in found})]

    reading.look_up("certificate", certificate)
    reading.look_up("store certificates", store)


def _state(instance: Instance) -> Iterable[Metric]:
    state, stale = instance.cache.snapshot(), instance.cache.stale_for_s()
    tasks, services = state.all(pb.Task).values(), state.all(pb.Service).values()
    settled = Counter("yes" if one.status.settled else "no" for one in services)
    yield TASKS.of(_by_word(pb.TaskState, (one.status.state for one in tasks)))
    yield READY.of(sum(one.status.ready for one in tasks))
    yield NODES.of(_by_word(pb.NodeState, (one.status.state for one in state.all(pb.Node).values())))
    yield SERVICES.of({(word,): settled[word] for word in ("yes", "no")})
    yield ROLLOUTS.of(_by_word(pb.RolloutState, (one.status.rollout.state for one in services)))
    yield SESSIONS.of(len(instance.dispatcher.sessions.descriptions()))
    yield LEADS.of(instance.leader().here)
    yield REVISION.of(instance.cache.revision)
    yield STALE.of(-1 if stale is None else stale)


def _by_word(enum: Any, states: Iterable[int]) -> Values:
    """How often each state of an enum is there, by its word: `{("running",): 3, ("failed",): 0, …}`."""
    counts = Counter(states)
    return {(word,): counts[number] for word, number in schema.enum_words(enum.DESCRIPTOR).items()}


def _etcd(members: Sequence[Member]) -> Iterable[Metric]:
    there = [one for one in members if not one.problem]
    yield ETCD_UP.of({(one.address,): not one.problem for one in members})
    yield ETCD_LEADER.of({(one.address,): one.has_leader for one in there})
    yield ETCD_TERM.of({(one.address,): one.term for one in there})
    yield ETCD_INDEX.of({(one.address,): one.index for one in there})
    yield ETCD_SIZE.of({(one.address,): one.size_bytes for one in there})
    yield ETCD_USED.of({(one.address,): one.used_bytes for one in there})


async def count_events(cache: Cache) -> None:
    """Counts the events that are told from now on. Runs until cancelled."""
    with cache.subscribe({"event"}) as subscription:
        while True:
            for change in (await subscription.take()).changes:
                _count_event(change)


def _count_event(change: Change) -> None:
    """An event that happens again is the same object with a higher count."""
    before, after = change.before, change.after
    if isinstance(after, pb.Event):
        again = before.status.count if isinstance(before, pb.Event) else 0
        word = schema.enum_word(pb.EventType.DESCRIPTOR, after.status.type)
        metrics.EVENTS.labels(word).inc(max(0, after.status.count - again))
