"""What every task of one revision asks of a node: read once, then held against all nodes.

The rule: a wish that cannot be read asks for nothing. The API refuses those; one that was stored by a later release
must not stop the scheduler.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from controlplane.core import demand
from manifests.constraints import Constraint, NotUnderstood, parse
from protos import taints
from protos.orch.v1 import objects_pb2 as pb

NODE = "node.name"
"""The attribute that `near` and `apart` mean when they name none."""

ServiceKey: TypeAlias = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """`weight` 0: it has to be so."""

    service: str
    by: str
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The revision's `placement` and resources. `priority` is the service's."""

    namespace: str
    service: str
    revision_id: str
    priority: int
    demand: demand.Demand
    own_users: bool
    """It insists on users of its own."""
    constraints: Sequence[Constraint]
    preferences: Sequence[tuple[Constraint, int]]
    """With their weights."""
    spread: Sequence[tuple[str, int]]
    """Attribute and the greatest skew; 0: as even as can be."""
    near: Sequence[Affinity]
    apart: Sequence[Affinity]
    max_per_node: int
    tolerations: Sequence[pb.Toleration]

    @property
    def key(self) -> ServiceKey:
        return self.namespace, self.service


def read(task: pb.Task, template: pb.TaskTemplate, priority: int = 0) -> Ask:
    """What the task asks for, and every other of its revision."""
    wishes = template.placement
    return Ask(
        namespace=task.meta.namespace,
        service=task.service,
        revision_id=task.revision_id,
        priority=priority,
        demand=demand.of(template),
        own_users=template.container.userns == pb.USER_NAMESPACE_AUTO,
        constraints=[one for one, _ in _readable((text, 0) for text in wishes.constraints)],
        preferences=_readable((one.expression, one.weight or 1) for one in wishes.preferences),
        spread=[(one.by, one.max_skew) for one in wishes.spread],
        near=[_affinity(one) for one in wishes.near],
        apart=[_affinity(one) for one in wishes.apart],
        max_per_node=wishes.max_per_node,
        tolerations=tuple(wishes.tolerations),
    )


def stands(tolerations: Iterable[pb.Toleration], taint: pb.Taint) -> bool:
    """Whether one of the tolerations is meant for the taint. What a toleration leaves open, it stands."""
    effect = taints.effect_of(taint)
    return any(
        one.key in {"", taint.key} and one.value in {"", taint.value} and one.effect in {0, effect}
        for one in tolerations
    )


def hard_apart(template: pb.TaskTemplate) -> list[Affinity]:
    """The services that tasks of the template have to be apart from."""
    return [_affinity(one) for one in template.placement.apart if not one.weight]


def _affinity(wish: pb.Affinity) -> Affinity:
    return Affinity(service=wish.service, by=wish.by or NODE, weight=wish.weight)


def _readable(texts: Iterable[tuple[str, int]]) -> list[tuple[Constraint, int]]:
    found = []
    for text, weight in texts:
        with contextlib.suppress(NotUnderstood):
            found.append((parse(text), weight))
    return found
