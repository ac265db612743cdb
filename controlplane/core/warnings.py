"""What is allowed but probably not meant: told with an apply's result, and never a reason to refuse it."""

from collections.abc import Collection, Iterator

from controlplane.core import image_names
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb


def warnings(value: kinds.StoredObject, *, images: Collection[str], nodes: Collection[pb.Node]) -> tuple[str, ...]:
    """For one applied object, given the names of the cluster's images and its nodes."""
    if not isinstance(value, pb.Service):
        return ()
    return (*_missing_image(value.spec.template.container, images), *_ports(value, nodes))


def _missing_image(container: pb.Container, images: Collection[str]) -> Iterator[str]:
    if not image_names.is_reference(container.image):
        yield f"the image {container.image!r:.100} is not written as one; write it like hello or hello:1.0"
    elif image_names.digest_of(container.image) is None and image_names.canonical(container.image) not in images:
        name = image_names.canonical(container.image)
        yield (
            f"the cluster has no image {name}; tasks start only on nodes that have it already, until "
            f"`orchctl image import FILE --name {name}` brings it"
        )


def _ports(service: pb.Service, nodes: Collection[pb.Node]) -> Iterator[str]:
    """A port of a node can be taken by one task only: 3 replicas that publish 8080 need 3 nodes."""
    published = sorted({port.published for port in service.spec.template.container.ports if port.published})
    able = sum(node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE} for node in nodes)
    if published and service.spec.replicas > able:
        yield (
            f"port {published[0]} is published on the node, so each of the {service.spec.replicas} replicas needs a "
            f"node of its own, and {able} take tasks; the others stay pending"
        )
