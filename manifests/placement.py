"""The rules of placement: which wishes can be read, and which contradict each other.

The rule: whatever can be known without looking at a node is told here, with its place. Whether a node fulfils it now is
for the control plane to say.
"""

import re
from collections.abc import Iterator

from manifests import constraints, defaults, dependencies, quoting
from manifests.paths import Path
from manifests.problems import Problem
from protos import taints, units
from protos.orch.v1 import objects_pb2 as pb
from protos.orch.v1 import options_pb2 as options

ONE_NODE = frozenset({"node.id", "node.name"})
"""Attributes that no two nodes share."""

MAX_GENERIC = 10_000
"""Things of one name that a task may ask for."""

_PIDS = pb.ResourceLimits.DESCRIPTOR.fields_by_name["pids"]
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_TAINT_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII)
_TAINT_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?", re.ASCII)


def problems(placement: pb.Placement, path: Path) -> Iterator[Problem]:
    """Of one `placement`."""
    yield from _constraints(placement, path)
    for index, preference in enumerate(placement.preferences):
        if preference.expression:
            yield from _readable(preference.expression, (*path, "preferences", index, "expression"))
    yield from _spreads(placement, path)
    for field, listed in (("near", placement.near), ("apart", placement.apart)):
        for index, affinity in enumerate(listed):
            yield from _attribute(affinity.by, (*path, field, index, "by"))
            if affinity.service:
                yield from dependencies.name_problems(affinity.service, (*path, field, index, "service"))
    yield from _near_and_apart(placement, path)


def toleration_problems(toleration: pb.Toleration, path: Path) -> Iterator[Problem]:
    """Of one toleration."""
    if toleration.value and not toleration.key:
        yield Problem(keys=(*path, "value"), message="belongs to a key", hint="write key, too")


def taint_problems(taint: pb.Taint, path: Path) -> Iterator[Problem]:
    """Of one taint of a node."""
    if taint.key and not _TAINT_KEY.fullmatch(taint.key):
        hint = "write letters, digits and . _ / - , beginning and ending with a letter or digit"
        yield Problem(keys=(*path, "key"), message=f"{quoting.shown(taint.key)} is no taint's key", hint=hint)
    if not _TAINT_VALUE.fullmatch(taint.value):
        hint = "write letters, digits and . _ - , or nothing"
        yield Problem(keys=(*path, "value"), message=f"{quoting.shown(taint.value)} is no taint's value", hint=hint)


def node_problems(spec: pb.NodeSpec, path: Path) -> Iterator[Problem]:
    """No taint twice: a key has one value for each effect."""
    seen: set[tuple[str, int]] = set()
    for index, taint in enumerate(spec.taints):
        mark = (taint.key, taints.effect_of(taint))
        if mark in seen:
            yield Problem(keys=(*path, "taints", index), message=f"{quoting.shown(taint.key)} has this effect already")
        seen.add(mark)


def resource_problems(resources: pb.Resources, path: Path) -> Iterator[Problem]:
    """No reservation beyond its limit, and names that a variable can be called by."""
    limits, reservations = resources.limits, resources.reservations
    for field, unit, limit, reserved in (
        ("cpu", options.UNIT_CPU, limits.cpu, reservations.cpu),
        ("memory", options.UNIT_BYTES, limits.memory, reservations.memory),
        ("pids", options.UNIT_NONE, limits.pids or defaults.number(_PIDS), reservations.pids),
    ):
        if limit and reserved > limit:
            message = f"{units.format(unit, reserved)} is more than the limit, {units.format(unit, limit)}"
            yield Problem(keys=(*path, "reservations", field), message=message)
    for name, count in sorted(reservations.generic.items()):
        where = (*path, "reservations", "generic", name)
        if not _RESOURCE.fullmatch(name):
            hint = "write at most 63 small letters, digits and -, such as gpu"
            yield Problem(keys=where, message="not the name of a resource", hint=hint, at_key=True)
        elif count > MAX_GENERIC:
            yield Problem(keys=where, message=f"{count} is too big, the most is {MAX_GENERIC}")


def _constraints(placement: pb.Placement, path: Path) -> Iterator[Problem]:
    parsed: dict[int, constraints.Constraint] = {}
    for index, text in enumerate(placement.constraints):
        try:
            parsed[index] = constraints.parse(text)
        except constraints.NotUnderstood as error:
            yield Problem(keys=(*path, "constraints", index), message=str(error), hint=error.hint)
    indexes = list(parsed)
    for position, why in constraints.contradictions(list(parsed.values())):
        hint = "remove one of them" if "together" in why else "remove it"
        yield Problem(keys=(*path, "constraints", indexes[position]), message=why, hint=hint)


def _readable(text: str, path: Path) -> Iterator[Problem]:
    try:
        constraints.parse(text)
    except constraints.NotUnderstood as error:
        yield Problem(keys=path, message=str(error), hint=error.hint)


def _attribute(attribute: str, path: Path) -> Iterator[Problem]:
    if attribute:
        try:
            constraints.check_attribute(attribute)
        except constraints.NotUnderstood as error:
            yield Problem(keys=path, message=str(error), hint=error.hint)


def _spreads(placement: pb.Placement, path: Path) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, spread in enumerate(placement.spread):
        here = (*path, "spread", index, "by")
        yield from _attribute(spread.by, here)
        if spread.by in seen:
            yield Problem(keys=here, message=f"{spread.by} is spread over already", hint="say it once")
        seen.add(spread.by)


def _near_and_apart(placement: pb.Placement, path: Path) -> Iterator[Problem]:
    """Hard near and hard apart by one attribute leave no node. Apart in a zone keeps off its nodes, too."""
    apart = {(one.service, one.by or "node.name") for one in placement.apart if not one.weight}
    for index, one in enumerate(placement.near):
        by = one.by or "node.name"
        clash = (one.service, by) in apart or (by in ONE_NODE and any(service == one.service for service, _ in apart))
        if clash and not one.weight:
            message = f"no node is near to {quoting.shown(one.service)} and apart from it"
            yield Problem(keys=(*path, "near", index), message=message, hint="remove one of them, or give it a weight")
