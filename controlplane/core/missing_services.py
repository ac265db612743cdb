"""Services that others name, and that are not there: what follows from that, and who was probably meant.

The rule: a name is compared with those that could stand in its place. Those are the others of its namespace, never the
service that says it.
"""

from collections.abc import Collection, Iterator, Mapping

from manifests import networking, suggest
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

_PLACEMENT = "spec.template.placement"


def of(service: pb.Service, services: Mapping[str, pb.Service]) -> Iterator[str]:
    """`services`: all there are, by `namespace/name`."""
    yield from _sources(service, services)
    yield from _company(service, services)
    yield from _dependencies(service, services)


def _sources(service: pb.Service, services: Collection[str]) -> Iterator[str]:
    for index, rule in enumerate(service.spec.allow):
        said = getattr(rule, "from")
        if networking.qualified(said, service.meta.namespace) not in services:
            yield _line(f"spec.allow[{index}].from", said, "nobody is let in by this", service, services)


def _company(service: pb.Service, services: Collection[str]) -> Iterator[str]:
    """A wish to be near to a service that is not there keeps its tasks waiting; one to be apart is easily fulfilled."""
    placement = service.spec.template.placement
    for field, listed, hard in (
        ("near", placement.near, "its tasks wait for it"),
        ("apart", placement.apart, "there is nothing to be apart from"),
    ):
        for index, one in enumerate(listed):
            if networking.qualified(one.service, service.meta.namespace) not in services:
                then = "this counts for nothing" if one.weight else hard
                yield _line(f"{_PLACEMENT}.{field}[{index}].service", one.service, then, service, services)


def _dependencies(service: pb.Service, services: Mapping[str, pb.Service]) -> Iterator[str]:
    for name in sorted(service.spec.depends_on):
        field, other = f"spec.dependsOn.{name}", services.get(networking.qualified(name, service.meta.namespace))
        if other is None:
            yield _line(field, name, "its tasks wait for it", service, services)
        elif other.spec.stopped:
            yield f"{field}: {name} is stopped; its tasks wait until `orchctl start {name}`"
        elif other.spec.mode != pb.SERVICE_MODE_GLOBAL and other.spec.HasField("replicas") and not other.spec.replicas:
            yield f"{field}: {name} has no replicas; its tasks wait until `orchctl scale {name}=1` or more"


def _line(field: str, said: str, then: str, service: pb.Service, services: Collection[str]) -> str:
    key = networking.qualified(said, service.meta.namespace)
    remedy = _meant(key, service, services) or "apply it, or remove this"
    return f"{field}: there is no service {key}, so {then}; {remedy}"


def _meant(key: str, service: pb.Service, services: Collection[str]) -> str:
    """Another name of the namespace, else the same name in another one; as it would be written in the service."""
    namespace, _, name = key.partition("/")
    others = [one.partition("/")[::2] for one in services if one != kinds.qualified(service)]
    meant = suggest.nearest(name, [other for home, other in others if home == namespace])
    home = namespace if meant else suggest.nearest(namespace, [home for home, other in others if other == name])
    if not home:
        return ""
    prefix = f"{home}/" if home != service.meta.namespace else ""
    return f'did you mean "{prefix}{meant or name}"?'
