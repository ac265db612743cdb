"""What is allowed but probably not meant: told with an apply's result, and never a reason to refuse it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from controlplane.core import ask, filters, fleet, image_names, refusals
from images import reference
from manifests import defaults, networking, suggest
from protos import containers, kinds
from protos.orch.v1 import objects_pb2 as pb


def warnings(
    value: kinds.StoredObject,
    *,
    images: Collection[pb.Image],
    empty: fleet.Fleet,
    services: Collection[str],
) -> tuple[str, ...]:
    """For one applied object, given the cluster's images, its nodes as if they were `emptied`, and its services as
    `namespace/name`.
    """
    if not isinstance(value, pb.Service):
        return ()
    template = value.spec.template
    members = (*containers.others(template), template.container)
    return (
        *(
            warning
            for image, is_fetched in dict.fromkeys((one.image, _is_fetched(one)) for one in members)
            for warning in (_missing_image(image, images, value.spec.images) if is_fetched else _never_fetched(image))
        ),
        *_ports(value, empty.nodes),
        *_missing_sources(value, services),
        *_missing_company(value, services),
        *_missing_dependencies(value, services),
        *_fits_nowhere(value, empty),
        *(warning for one in members for warning in _privileged(one)),
        *_not_rolled_out(value),
    )


def emptied(nodes: Collection[pb.Node]) -> fleet.Fleet:
    """The nodes as if they had no task, and those that are away or paused were back."""
    empty = fleet.survey(nodes, (), {}, {})
    empty.ready[:] = empty.active[:] = True
    return empty


def _is_fetched(one: pb.Container) -> bool:
    return one.image_pull_policy != pb.IMAGE_PULL_POLICY_NEVER


def _never_fetched(wanted: str) -> Iterator[str]:
    """Pushing it would change nothing."""
    yield f"the image {wanted} is never fetched; tasks start only on nodes that have something of that name already"


def _missing_image(wanted: str, images: Collection[pb.Image], settled: Mapping[str, str]) -> Iterator[str]:
    if not image_names.is_reference(wanted):
        yield f"the image {wanted!r:.100} is not written as one; write it like hello or hello:1.0"
        return
    if reference.names_registry(wanted):
        if wanted not in settled:
            yield f"its registry has not told what {wanted} means; each node asks when it starts a task"
        return
    name, digest = image_names.canonical(wanted), image_names.digest_of(wanted)
    if not any(image.status.digest == digest if digest else image.meta.name == name for image in images):
        yield (
            f"the cluster has no image {wanted}; tasks start only on nodes that have it already, until "
            f"`orchctl image push {name}` brings it"
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


def _not_rolled_out(service: pb.Service) -> Iterator[str]:
    """What people said about it earlier, and may have forgotten; and numbers that count for nothing."""
    name = service.meta.name
    if service.spec.stopped:
        yield f"it is stopped, and runs nothing until `orchctl start {name}`"
    if service.spec.rollout.paused:
        yield f"its rollouts are paused: nothing is replaced until `orchctl rollout resume {name}`"
    if service.spec.mode == pb.SERVICE_MODE_GLOBAL and service.spec.HasField("replicas"):
        yield "it is global: it has one task on each node that fits, and `replicas` says nothing"


def _missing_company(service: pb.Service, services: Collection[str]) -> Iterator[str]:
    """A wish to be near to a service that is not there keeps its tasks waiting; one to be apart is easily fulfilled."""
    for field, listed in (
        ("near", service.spec.template.placement.near),
        ("apart", service.spec.template.placement.apart),
    ):
        for one in listed:
            key = networking.qualified(one.service, service.meta.namespace)
            if key not in services:
                meant = suggest.did_you_mean(key, services)
                yield f"there is no service {key} that `{field}` could mean{f'; {meant}' if meant else ' yet'}"


def _fits_nowhere(service: pb.Service, empty: fleet.Fleet) -> Iterator[str]:
    """What no node could take if it were empty."""
    template: pb.TaskTemplate = defaults.resolve(service.spec.template)
    task = pb.Task(meta=pb.Meta(namespace=service.meta.namespace), service=service.meta.name)
    asked = replace(ask.read(task, template), near=(), apart=(), spread=())
    if empty.nodes and not filters.passing(empty, asked).any():
        told = refusals.sentence(refusals.Look(empty, asked).refusals())
        yield f"its tasks stay pending, even if every node were empty: {told}"


def _missing_dependencies(service: pb.Service, services: Collection[str]) -> Iterator[str]:
    for name in sorted(service.spec.depends_on):
        wanted = f"{service.meta.namespace}/{name}"
        if wanted not in services:
            meant = suggest.did_you_mean(wanted, [one for one in services if one != kinds.qualified(service)])
            yield f"there is no service {wanted} that it depends on{f'; {meant}' if meant else ' yet'}; its tasks wait"


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
