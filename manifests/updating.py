"""What can be wrong with how a service is updated, and with how much of it may be missing: figures that contradict each
other.
"""

from collections.abc import Iterator

from manifests.paths import Path
from manifests.problems import Problem
from protos.orch.v1 import objects_pb2 as pb

WHOLE = 100
"""Per cent."""
DEFAULT = 1
"""Of `parallelism`: resolved policies have it, whatever else they say."""


def problems(update: pb.UpdatePolicy, path: Path) -> Iterator[Problem]:
    """Either `parallelism` and `order`, or `maxSurge` and `maxUnavailable`; and something has to be able to move."""
    other_way = [
        word for word, said in (("maxSurge", update.max_surge), ("maxUnavailable", update.max_unavailable)) if said
    ]
    yield from _part(update.max_unavailable, (*path, "maxUnavailable"))
    if not other_way:
        return
    for word, said in (
        ("parallelism", update.parallelism not in {0, DEFAULT} or _is_all(update)),
        ("order", update.order != 0),
    ):
        if said:
            hint = (
                f"write either parallelism and order, or maxSurge and maxUnavailable; remove {word} or {other_way[0]}"
            )
            yield Problem(keys=(*path, word), message=f"{other_way[0]} takes its place", hint=hint)
    if all(_is_nothing(said) for said in (update.max_surge, update.max_unavailable)):
        message = "with neither a task more nor one less, nothing can be replaced"
        yield Problem(keys=(*path, other_way[0]), message=message, hint="write maxSurge: 1 or maxUnavailable: 1")


def order_problems(spec: pb.ServiceSpec, path: Path) -> Iterator[Problem]:
    """Both tasks of a place of a global service are on its node, which has each of its ports once."""
    if spec.mode != pb.SERVICE_MODE_GLOBAL:
        return
    members = (spec.template.container, *spec.template.sidecars)
    ports = (port for one in members for port in one.ports if port.published and port.mode == pb.PUBLISH_MODE_HOST)
    taken = next(ports, None)
    if taken is None:
        return
    message = (
        f"a new task would wait for port {taken.published} of its node, and the old one, which has it, for the new one"
    )
    if spec.update.order == pb.UPDATE_ORDER_START_FIRST:
        yield Problem(keys=(*path, "update", "order"), message=message, hint="write stop-first")
    if not _is_nothing(spec.update.max_surge):
        yield Problem(keys=(*path, "update", "maxSurge"), message=message, hint="write maxUnavailable instead")


def disruption_problems(policy: pb.DisruptionPolicy, path: Path) -> Iterator[Problem]:
    """One of the two, and no more than there are."""
    yield from _part(policy.max_unavailable, (*path, "maxUnavailable"))
    yield from _part(policy.min_available, (*path, "minAvailable"))
    if policy.max_unavailable and policy.min_available:
        message = "minAvailable says it already, and only one of the two can hold"
        yield Problem(keys=(*path, "maxUnavailable"), message=message, hint="remove maxUnavailable or minAvailable")


def _part(said: str, path: Path) -> Iterator[Problem]:
    """A part of the tasks. What is no percentage, or cannot be read, is not judged here."""
    number = said.removesuffix("%")
    if number != said and number.isdecimal() and int(number) > WHOLE:
        yield Problem(
            keys=path, message=f"{said} is more than all of them", hint=f"write {WHOLE}% or less, or a number"
        )


def _is_all(update: pb.UpdatePolicy) -> bool:
    return update.HasField("parallelism") and update.parallelism == 0


def _is_nothing(said: str) -> bool:
    """`0`, `0%`, or not said."""
    return not said.removesuffix("%").strip("0")
