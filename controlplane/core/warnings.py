"""What is allowed but probably not meant: told with an apply's result, and never a reason to refuse it."""

from collections.abc import Collection, Iterator, Mapping

from controlplane.core import disruption, fleet, image_names, leaving, placement_warnings
from images import reference
from manifests import networking, suggest
from protos import containers, kinds
from protos.orch.v1 import objects_pb2 as pb


def warnings(
    value: kinds.StoredObject,
    *,
    images: Collection[pb.Image],
    empty: fleet.Fleet,
    services: Mapping[str, pb.Service],
) -> tuple[str, ...]:
    """For one applied object, given the cluster's images, its nodes as if they were `emptied`, and its services by
    `namespace/name`, those that were applied with it included.
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
        *placement_warnings.of(value, empty, services),
        *_update(value),
        *_disruption(value),
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


def _missing_dependencies(service: pb.Service, services: Mapping[str, pb.Service]) -> Iterator[str]:
    for name in sorted(service.spec.depends_on):
        wanted = f"{service.meta.namespace}/{name}"
        if wanted in services:
            yield from _never_ready(name, services[wanted])
        else:
            meant = suggest.did_you_mean(wanted, [one for one in services if one != kinds.qualified(service)])
            yield f"there is no service {wanted} that it depends on{f'; {meant}' if meant else ' yet'}; its tasks wait"


def _never_ready(name: str, other: pb.Service) -> Iterator[str]:
    """It is there, and is asked to run nothing."""
    if other.spec.stopped:
        yield f"spec.dependsOn.{name}: {name} is stopped; its tasks wait until `orchctl start {name}`"
    elif other.spec.mode != pb.SERVICE_MODE_GLOBAL and other.spec.HasField("replicas") and not other.spec.replicas:
        yield f"spec.dependsOn.{name}: {name} has no replicas; its tasks wait until `orchctl scale {name}=1` or more"


def _update(service: pb.Service) -> Iterator[str]:
    """What of `update` counts for nothing."""
    update, replicas = service.spec.update, service.spec.replicas
    replicated = service.spec.mode != pb.SERVICE_MODE_GLOBAL and service.spec.HasField("replicas")
    if replicated and 0 < replicas <= update.canary:
        yield (
            f"spec.update.canary: {update.canary} of {replicas} replicas leaves none that could wait for `orchctl "
            "rollout promote`: every rollout goes through at once; write fewer than there are"
        )
    other = "maxSurge" if update.max_surge else "maxUnavailable" if update.max_unavailable else ""
    if other and update.HasField("parallelism"):
        yield f"spec.update.parallelism: {other} takes its place, and it counts for nothing; remove it"


def _disruption(service: pb.Service) -> Iterator[str]:
    """What may never be missing can leave no node where it stops first, but by a deadline."""
    spec, policy = service.spec, service.spec.disruption
    if spec.mode == pb.SERVICE_MODE_GLOBAL or not spec.replicas or leaving.starts_first(service):
        return
    field = "minAvailable" if policy.min_available else "maxUnavailable"
    said = policy.min_available or policy.max_unavailable
    if said and not disruption.spare(policy, spec.replicas):
        yield (
            f"spec.disruption.{field}: {said} of {spec.replicas} replicas leaves none that may be missing, and its "
            "tasks stop before others start: a drain of their nodes waits until its --deadline, and without one for "
            "ever; let one be missing"
        )


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
