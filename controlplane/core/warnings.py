"""What is allowed but probably not meant: told with an apply's result, and never a reason to refuse it."""

from collections.abc import Collection, Iterator

from controlplane.core import image_names
from manifests import networking, suggest
from protos import containers, kinds
from protos.orch.v1 import objects_pb2 as pb


def warnings(
    value: kinds.StoredObject,
    *,
    images: Collection[pb.Image],
    nodes: Collection[pb.Node],
    services: Collection[str],
) -> tuple[str, ...]:
    """For one applied object, given the cluster's images and nodes, and its services as `namespace/name`."""
    if not isinstance(value, pb.Service):
        return ()
    template = value.spec.template
    members = (*containers.others(template), template.container)
    return (
        *(
            warning
            for image in dict.fromkeys(one.image for one in members)
            for warning in _missing_image(image, images)
        ),
        *_ports(value, nodes),
        *_missing_sources(value, services),
        *_missing_dependencies(value, services),
        *(warning for one in members for warning in _privileged(one)),
    )


def _missing_image(wanted: str, images: Collection[pb.Image]) -> Iterator[str]:
    if not image_names.is_reference(wanted):
        yield f"the image {wanted!r:.100} is not written as one; write it like hello or hello:1.0"
        return
    name, digest = image_names.canonical(wanted), image_names.digest_of(wanted)
    if not any(image.status.digest == digest if digest else image.meta.name == name for image in images):
        yield (
            f"the cluster has no image {wanted}; tasks start only on nodes that have it already, until "
            f"`orchctl image import FILE --name {name}` brings it"
        )


def _ports(service: pb.Service, nodes: Collection[pb.Node]) -> Iterator[str]:
    """A port of a node can be taken by one task only: 3 replicas that publish 8080 need 3 nodes."""
    ports = service.spec.template.container.ports
    published = sorted({port.published for port in ports if port.published and port.mode == pb.PUBLISH_MODE_HOST})
    able = sum(_takes_tasks(node) for node in nodes)
    if published and service.spec.replicas > able:
        yield (
            f"port {published[0]} is published on the node, so each of the {service.spec.replicas} replicas needs a "
            f"node of its own, and {able} take tasks; the others stay pending"
        )


def _missing_sources(service: pb.Service, services: Collection[str]) -> Iterator[str]:
    for rule in service.spec.allow:
        source = networking.qualified(getattr(rule, "from"), service.meta.namespace)
        if source not in services:
            meant = suggest.did_you_mean(source, services)
            yield f"there is no service {source} that `allow` could let in{f'; {meant}' if meant else ' yet'}"


def _missing_dependencies(service: pb.Service, services: Collection[str]) -> Iterator[str]:
    for name in sorted(service.spec.depends_on):
        wanted = f"{service.meta.namespace}/{name}"
        if wanted not in services:
            meant = suggest.did_you_mean(wanted, [one for one in services if one != _key(service)])
            yield f"there is no service {wanted} that it depends on{f'; {meant}' if meant else ' yet'}; its tasks wait"


def _key(service: pb.Service) -> str:
    return f"{service.meta.namespace}/{service.meta.name}"


def _privileged(container: pb.Container) -> Iterator[str]:
    if container.privileged:
        called = f"its container {container.name}" if container.name else "its container"
        yield (
            f"{called} is privileged, so whoever gets into it is root of the node; most need no more than an "
            "entry in capabilities.add or devices"
        )


def _takes_tasks(node: pb.Node) -> bool:
    active = node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE}
    return active and node.status.state != pb.NODE_STATE_DOWN
