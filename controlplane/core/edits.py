"""Decides the small changes: delete, scale, labels and annotations, and a node's taints and availability.

Each function is given the object as it is stored and answers with how it should be stored, or refuses. An object that
is returned as it came needs no write.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from controlplane.core import apply, plan, relations
from controlplane.core import request_errors as errors
from manifests import rules
from protos import absence, kinds, losses, taints
from protos.orch.v1 import objects_pb2 as pb

ObjectT = TypeVar("ObjectT", bound=pb.Service | pb.Node | pb.Network)

LONGEST_DEADLINE_MS = 30 * 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What becomes of the labels, or of the annotations, of an object."""

    add: Mapping[str, str]
    remove: Iterable[str]

    def apply(self, present: MutableMapping[str, str]) -> None:
        for key in self.remove:
            present.pop(key, None)
        present.update(self.add)


def scale(service: pb.Service, replicas: int, *, now_ms: int) -> pb.Service:
    """The service with another number of replicas."""
    if service.meta.deleted_at:
        raise errors.NotNow(f"{kinds.label(service)} is being deleted and cannot be scaled")
    if service.spec.mode == pb.SERVICE_MODE_GLOBAL:
        hint = "its constraints, and the availability of nodes, decide where it runs"
        raise errors.Invalid(f"{kinds.label(service)} is global: it has one task on each node that fits", hint=hint)
    scaled = plan.copy(service)
    scaled.spec.replicas = replicas
    return _checked(service, scaled, now_ms)


def ask_to_spread(service: pb.Service, *, now_ms: int) -> pb.Service:
    """The service with the wish that its tasks are spread over the nodes now."""
    asked = plan.copy(service)
    asked.spec.rebalance_asked_at = now_ms
    return _checked(service, asked, now_ms)


def update_node(
    node: pb.Node,
    *,
    availability: pb.Availability.ValueType,
    set_labels: Mapping[str, str],
    remove_labels: Iterable[str],
    set_taints: Iterable[pb.Taint] = (),
    remove_taints: Iterable[str] = (),
    deadline_ms: int | None = None,
    lost: bool = False,
    now_ms: int,
) -> pb.Node:
    """The node with other labels or taints, or another availability; UNSPECIFIED leaves it as it is.

    `deadline_ms`: how long a drain heeds what services allow; None = for ever. `lost`: it does not come back, which is
    refused of one that is there.
    """
    updated = plan.copy(node)
    _check_deadline(availability, deadline_ms)
    if availability != pb.AVAILABILITY_UNSPECIFIED:
        updated.spec.availability = availability
        updated.spec.drain_deadline = now_ms + deadline_ms if deadline_ms is not None else 0
    if lost:
        _check_lost(node)
        updated.spec.lost_since = node.status.since
    Words(add=set_labels, remove=remove_labels).apply(updated.meta.labels)
    after = taints_after(updated.spec.taints, set_taints, remove_taints)
    if after != list(updated.spec.taints):
        del updated.spec.taints[:]
        updated.spec.taints.extend(after)
    return _checked(node, updated, now_ms)


def _check_deadline(availability: pb.Availability.ValueType, deadline_ms: int | None) -> None:
    if deadline_ms is None:
        return
    if availability != pb.AVAILABILITY_DRAIN:
        raise errors.Invalid("a deadline without a drain", hint="only a node that is drained has one")
    if not 0 <= deadline_ms <= LONGEST_DEADLINE_MS:
        raise errors.Invalid("the deadline of a drain is too far away", hint="it is between 0s and 720h")


def _check_lost(node: pb.Node) -> None:
    if not losses.is_lost(node):
        raise errors.NotNow(
            f"{kinds.label(node)} is not lost: its agent holds a session",
            hint=f"`orchctl node drain {node.meta.name}` has its tasks replaced on others",
        )


def update_meta(
    value: kinds.StoredObject, *, labels: Words, annotations: Words, overwrite: bool, now_ms: int
) -> pb.Service | pb.Node | pb.Network:
    """The object with other labels and annotations. What is there already gets another value only with `overwrite`."""
    if not isinstance(value, pb.Service | pb.Node | pb.Network):
        raise errors.Invalid(
            f"{kinds.label(value)}: the system makes these, with their labels",
            hint="services, nodes and networks can be labelled and annotated",
        )
    updated: pb.Service | pb.Node | pb.Network = plan.copy(value)
    for what, words, present in (
        ("label", labels, updated.meta.labels),
        ("annotation", annotations, updated.meta.annotations),
    ):
        taken = sorted(key for key, text in words.add.items() if present.get(key, text) != text)
        if taken and not overwrite:
            text = f"{kinds.label(value)} has the {what} {taken[0]}={present[taken[0]]} already"
            raise errors.NotNow(text, hint="--overwrite gives it another value")
        words.apply(present)
    return _checked(value, updated, now_ms)


def taints_after(before: Iterable[pb.Taint], setting: Iterable[pb.Taint], removed: Iterable[str]) -> list[pb.Taint]:
    """The taints of a node without those of `removed` (`key` or `key:effect`), and with those that are set."""

    def mark(taint: pb.Taint) -> tuple[str, str]:
        return taint.key, taints.effect_word(taint)

    gone = set(removed)
    kept = {mark(one): one for one in before if one.key not in gone and ":".join(mark(one)) not in gone}
    kept.update({mark(one): one for one in setting})
    return list(kept.values())


def mark_deleted(service: pb.Service, *, now_ms: int) -> pb.Service:
    """The service with the wish that it should go. Its controller ends its tasks and removes it then."""
    if service.meta.deleted_at:
        return service
    marked = plan.copy(service)
    marked.meta.deleted_at = now_ms
    return marked


def check_removable(value: kinds.StoredObject, services: Iterable[pb.Service]) -> None:
    """Refuses what cannot simply be removed from the store. Images can, nodes that are down, and unused networks."""
    if isinstance(value, pb.Network):
        relations.check_unused(value, services)
    if isinstance(value, pb.Cluster):
        raise errors.Invalid("the cluster's record is the leader's memory, and stays")
    if isinstance(value, pb.Event):
        raise errors.Invalid("events go by themselves, the oldest first")
    if isinstance(value, pb.Task | pb.Revision):
        _refuse_owned(value)
    if isinstance(value, pb.Node) and absence.is_expected(value):
        raise errors.NotNow(
            f"{kinds.label(value)} is not down: its agent has gone in order, and is expected back",
            hint="delete it when it is down; an agent that is stopped for good (`systemctl stop`) is not expected",
        )
    if isinstance(value, pb.Node) and value.status.state in {pb.NODE_STATE_READY, pb.NODE_STATE_DISCONNECTED}:
        raise errors.NotNow(
            f"{kinds.label(value)} is not down: its agent is connected, or was a moment ago",
            hint=f"`orchctl node drain {value.meta.name}`, stop the agent there, and delete it when it is down",
        )


def _refuse_owned(value: pb.Task | pb.Revision) -> NoReturn:
    raise errors.Invalid(
        f"{kinds.label(value)} belongs to the service {value.service}, which would only replace it",
        hint=f"scale or delete the service: `orchctl delete service {value.service}`",
    )


def _checked(before: ObjectT, after: ObjectT, now_ms: int) -> ObjectT:
    """`after` with its generation, once the rules of the schema hold for it."""
    mistakes = [
        errors.Mistake(object=kinds.label(after), path=problem.path, message=problem.message)
        for problem in rules.validate(after)
    ]
    if mistakes:
        raise errors.of_mistakes(errors.Invalid, mistakes)
    changed = apply.changed(before, after, now_ms=now_ms)
    assert isinstance(changed, type(after)), "a change keeps the kind"
    return changed
