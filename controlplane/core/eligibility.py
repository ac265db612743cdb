"""Which nodes a service may have tasks on by what somebody decided: those of a global one, and those to be left.

The rule: what passes by itself (a session that was lost, room that is taken) does not count here; only what somebody
decided, about the node or about the service.
"""

import contextlib
from collections.abc import Collection, Iterable, Sequence

from controlplane.core import ask
from controlplane.core.attributes import attribute_of
from manifests import constraints
from protos import taints
from protos.orch.v1 import objects_pb2 as pb

_DRIVING_OUT = frozenset({pb.TAINT_EFFECT_NO_EXECUTE})
_KEEPING_OUT = frozenset({pb.TAINT_EFFECT_NO_EXECUTE, pb.TAINT_EFFECT_NO_SCHEDULE})


def eligible(template: pb.TaskTemplate, node: pb.Node) -> bool:
    """Whether the node is one of those that the service is for."""
    return (
        node.spec.availability != pb.AVAILABILITY_DRAIN
        and _gives_users(template, node)
        and all(_fulfils(node, text) for text in template.placement.constraints)
        and not drives_out(template, node)
    )


def drives_out(template: pb.TaskTemplate, node: pb.Node) -> bool:
    """Whether its tasks have to leave the node, since they do not stand a taint of it."""
    return not _stands(template, node, _DRIVING_OUT)


def takes_new(template: pb.TaskTemplate, node: pb.Node) -> bool:
    """Whether such a node takes a task that it does not have yet."""
    return node.spec.availability != pb.AVAILABILITY_PAUSE and _stands(template, node, _KEEPING_OUT)


def _gives_users(template: pb.TaskTemplate, node: pb.Node) -> bool:
    """Only where it is written out: a template that leaves it open runs everywhere."""
    return template.container.userns != pb.USER_NAMESPACE_AUTO or not node.status.description.no_users


def _fulfils(node: pb.Node, text: str) -> bool:
    """A constraint that cannot be read asks for nothing, as the scheduler has it (`ask`)."""
    with contextlib.suppress(constraints.NotUnderstood):
        constraint = constraints.parse(text)
        return constraint.fulfilled(attribute_of(node, constraint.attribute))
    return True


def _stands(template: pb.TaskTemplate, node: pb.Node, effects: Collection[int]) -> bool:
    """Whether it tolerates the node's taints of these effects."""
    meant = (taint for taint in node.spec.taints if taints.effect_of(taint) in effects)
    return all(ask.stands(template.placement.tolerations, taint) for taint in meant)


def driven_out(revisions: Iterable[pb.Revision], tainted: Sequence[pb.Node]) -> frozenset[tuple[str, str]]:
    """Revisions and nodes, by their ids, whose tasks have to leave them. Each task is judged by its own revision, as
    the scheduler judges it: by the spec, one of an older revision would be placed and driven out without an end.
    """
    return frozenset(
        (one.meta.id, node.meta.id) for one in revisions for node in tainted if drives_out(one.template, node)
    )
