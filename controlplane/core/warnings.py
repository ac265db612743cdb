"""What is allowed but probably not meant: told with an apply's result, and never a reason to refuse it."""

from collections.abc import Collection, Iterator, Mapping

from controlplane.core import (
    disruption,
    fleet,
    image_names,
    leaving,
    missing_services,
    placement_warnings,
    update_policy,
)
from images import reference
from manifests import defaults
from protos import containers, kinds, units
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
        *missing_services.of(value, services),
        *placement_warnings.of(value, empty, services),
        *_nothing_to_choose(value),
        *_update(value),
        *_hardly_asked(value),
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


def _not_rolled_out(service: pb.Service) -> Iterator[str]:
    """What people said about it earlier, and may have forgotten; and numbers that count for nothing."""
    name = service.meta.name
    if service.spec.stopped:
        yield f"it is stopped, and runs nothing until `orchctl start {name}`"
    if service.spec.rollout.paused:
        yield f"its rollouts are paused: nothing is replaced until `orchctl rollout resume {name}`"
    if service.spec.mode == pb.SERVICE_MODE_GLOBAL and service.spec.HasField("replicas"):
        yield "it is global: it has one task on each node that fits, and `replicas` says nothing"


def _nothing_to_choose(service: pb.Service) -> Iterator[str]:
    """What of a global service's placement asks for a choice among nodes."""
    if service.spec.mode != pb.SERVICE_MODE_GLOBAL:
        return
    wishes = service.spec.template.placement
    said = {
        "spec.rebalance": service.spec.HasField("rebalance"),
        "spec.template.placement.preferences": wishes.preferences,
        "spec.template.placement.spread": wishes.spread,
        "spec.template.placement.near": any(one.weight for one in wishes.near),
        "spec.template.placement.apart": any(one.weight for one in wishes.apart),
        "spec.template.placement.maxPerNode": wishes.max_per_node,
    }
    for field in (field for field, value in said.items() if value):
        weight = " what has a weight" if field.endswith(("near", "apart")) else ""
        yield f"{field}: it is global: one task on each node that fits, and nothing to choose; remove{weight or ' it'}"


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
    if not other and replicas != 1 and update.HasField("parallelism"):
        yield from _all_at_once(service)


def _hardly_asked(service: pb.Service) -> Iterator[str]:
    """A deadline that is over before anybody asks a second time."""
    spec: pb.ServiceSpec = defaults.resolve(service.spec)
    deadline_ms = spec.update.progress_deadline
    for one in (spec.template.container, *spec.template.sidecars):
        interval_ms = one.probes.readiness.interval
        if one.probes.HasField("readiness") and interval_ms >= deadline_ms:
            whose = f"the readiness probe of {one.name}" if one.name else "the readiness probe"
            yield (
                f"spec.update.progressDeadline: {whose} asks every {units.format_duration(interval_ms)}, so a new task "
                f"that is not ready at once has failed, after {units.format_duration(deadline_ms)}, before it is asked "
                "again; write a shorter interval, or a longer deadline"
            )


def _all_at_once(service: pb.Service) -> Iterator[str]:
    """Where nobody has said that tasks stop first, nobody may have thought that all of them would."""
    spec, update = service.spec, service.spec.update
    replicated = spec.mode != pb.SERVICE_MODE_GLOBAL
    everything = not update.parallelism or (replicated and update.parallelism >= spec.replicas)
    if not everything or update.order != pb.UPDATE_ORDER_UNSPECIFIED:
        return
    said, end = (
        f"parallelism: {update.parallelism}",
        "so nothing works until the new ones are ready; write parallelism: 1",
    )
    taken = update_policy.single(spec.template)
    if spec.on_node_loss.fence:
        yield f"spec.update.parallelism: fenced tasks stop before new ones start, with {said} all at once, {end}"
    elif taken:
        other = ", or start-first if other nodes have it for as many tasks more" if replicated else ""
        yield (
            f"spec.update.order: not said, and tasks that take {taken} of their nodes stop before new ones start, "
            f"with {said} all at once, {end}{other}"
        )


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
