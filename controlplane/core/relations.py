"""Whether objects fit together: networks that services name, what they wait for, and ports that only one can have.

The rule: what is applied is held against everything that is there and everything else of the same apply. A service that
is being deleted has its ports until it is gone; the networks that it names it does not need any more.

Two people who publish one port in the same moment, through two instances, may both get it past this. Nodes then give it
to the service that was made first (`published`), and the status of the other one says so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from controlplane.core import request_errors as errors
from manifests import dependencies, networking, quoting, suggest
from protos import kinds, schema
from protos.orch.v1 import objects_pb2 as pb

MAX_SHOWN: Final = 3

PortKey: TypeAlias = tuple[int, int]
"""Protocol and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an object cannot be applied onto what is there."""

    error: type[errors.RequestError]
    mistake: errors.Mistake
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is there, and will be after the apply."""

    services: Mapping[str, pb.Service]
    """By `namespace/name`."""
    networks: frozenset[str]
    """As `namespace/name`, those that every namespace has left out."""

    @classmethod
    def after(cls, there: Iterable[kinds.StoredObject], wanted: Sequence[kinds.StoredObject]) -> "Surroundings":
        """What will be there once `wanted` is applied."""
        together = [*there, *wanted]
        return cls(
            services={kinds.qualified(one): one for one in together if isinstance(one, pb.Service)},
            networks=frozenset(kinds.qualified(one) for one in together if isinstance(one, pb.Network)),
        )

    def holders(self) -> Mapping[PortKey, Sequence[tuple[pb.Service, "pb.PublishMode.ValueType"]]]:
        """Who publishes a port, and how."""
        found: dict[PortKey, list[tuple[pb.Service, pb.PublishMode.ValueType]]] = {}
        for service in self.services.values():
            for port in service.spec.template.container.ports:
                if port.published:
                    found.setdefault(networking.published_key(port), []).append((service, networking.mode_of(port)))
        return found

    def has_network(self, key: str) -> bool:
        """The default network of a namespace is there as soon as anything else of the namespace is."""
        namespace, _, name = key.partition("/")
        if name == networking.DEFAULT_NETWORK:
            return any(one.startswith(f"{namespace}/") for one in (*self.services, *self.networks))
        return key in self.networks


def refusals(wanted: Sequence[kinds.StoredObject], around: Surroundings) -> Iterator[Refusal]:
    """Why the objects of an apply do not fit together, or not with what is there."""
    holders, graph = around.holders(), dependencies.graph_of(around.services.values())
    for one in wanted:
        if isinstance(one, pb.Service):
            yield from _networks(one, around)
            yield from _ports(one, holders)
            yield from _cycle(one, graph)
            yield from _endless(one, around)


def users_of(network: pb.Network, services: Iterable[pb.Service]) -> list[str]:
    """The services that are in a network, as messages name them."""
    key = kinds.qualified(network)
    using = (one for one in services if not one.meta.deleted_at and key in networking.networks_of(one))
    return sorted(kinds.label(one) for one in using)


def check_unused(network: pb.Network, services: Iterable[pb.Service]) -> None:
    """Raises NotNow for a network that services are in."""
    users = users_of(network, services)
    if users:
        shown = ", ".join(users[:MAX_SHOWN]) + (f" and {len(users) - MAX_SHOWN} more" if len(users) > MAX_SHOWN else "")
        raise errors.NotNow(
            f"{kinds.label(network)} is used by {shown}",
            hint="take it out of their `networks`, or delete them first",
        )


def _networks(service: pb.Service, around: Surroundings) -> Iterator[Refusal]:
    for index, name in enumerate(service.spec.networks):
        key = networking.qualified(name, service.meta.namespace)
        if around.has_network(key):
            continue
        namespace, _, bare = key.partition("/")
        known = [one.partition("/")[2] for one in around.networks if one.startswith(f"{namespace}/")]
        hint = suggest.did_you_mean(bare, known) or "apply the network first, or in the same files"
        mistake = _mistake(
            service, f"spec.networks[{index}]", f"there is no network {quoting.shown(bare)} in namespace {namespace}"
        )
        yield Refusal(error=errors.Unknown, mistake=mistake, hint=hint)


def _ports(
    service: pb.Service, holders: Mapping[PortKey, Sequence[tuple[pb.Service, "pb.PublishMode.ValueType"]]]
) -> Iterator[Refusal]:
    for index, port in enumerate(service.spec.template.container.ports):
        if not port.published:
            continue
        others = holders[networking.published_key(port)]
        holder = next((other for other, mode in others if _clash(service, other, networking.mode_of(port), mode)), None)
        if holder is not None:
            shown = f"{port.published}/{schema.enum_word(pb.Protocol.DESCRIPTOR, networking.published_key(port)[0])}"
            leaving = ", which is being deleted" if holder.meta.deleted_at else ""
            path = f"spec.template.container.ports[{index}].published"
            mistake = _mistake(service, path, f"port {shown} is published by {kinds.label(holder)} already{leaving}")
            hint = "wait until it is gone, then apply again" if leaving else "publish another port"
            yield Refusal(error=errors.NotNow, mistake=mistake, hint=hint)


def _cycle(service: pb.Service, graph: dependencies.Graph) -> Iterator[Refusal]:
    """Services that wait for each other wait for ever."""
    cycle = dependencies.cycle_through(kinds.qualified(service), graph)
    if cycle:
        names = [one.partition("/")[2] for one in cycle]
        message = f"{' → '.join(names)} wait for each other" if len(names) > 2 else f"{names[0]} waits for itself"
        mistake = _mistake(service, f"spec.dependsOn.{names[1]}", message)
        yield Refusal(error=errors.Invalid, mistake=mistake, hint="take one of them out of its `dependsOn`")


def _endless(service: pb.Service, around: Surroundings) -> Iterator[Refusal]:
    """Waiting for the end of what is started again whenever it ends."""
    for name, condition in sorted(service.spec.depends_on.items()):
        other = around.services.get(f"{service.meta.namespace}/{name}")
        if condition != pb.DEPENDENCY_CONDITION_COMPLETED or other is None:
            continue
        if other.spec.template.restart.condition in {pb.RESTART_CONDITION_UNSPECIFIED, pb.RESTART_CONDITION_ANY}:
            message = f"{name} is started again whenever it ends, so it is never completed"
            mistake = _mistake(service, f"spec.dependsOn.{name}", message)
            hint = f"write `restart: {{condition: on-failure}}` in the template of {name}, or wait until it is ready"
            yield Refusal(error=errors.Invalid, mistake=mistake, hint=hint)


def _clash(service: pb.Service, other: pb.Service, mine: int, theirs: int) -> bool:
    """A port that listens on every node leaves none for others. Two that listen where their tasks are may share it."""
    return kinds.qualified(service) != kinds.qualified(other) and pb.PUBLISH_MODE_INGRESS in {mine, theirs}


def _mistake(service: pb.Service, path: str, message: str) -> errors.Mistake:
    return errors.Mistake(object=kinds.label(service), path=path, message=message)
