"""Decides which objects end because their stack's files do not have them any more.

The rule: a stack is one name in one namespace. Only services and networks are pruned, only in the namespaces of the
objects that are applied, and only those whose end was agreed to: one that somebody has put into the stack since then
refuses everything.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from controlplane.core import apply, edits, plan, relations
from controlplane.core import request_errors as errors
from protos import kinds
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What goes, services before networks; and how that is written."""

    doomed: tuple[kinds.StoredObject, ...] = ()
    changes: tuple[plan.Change, ...] = ()

    def results(self) -> Iterator[apply.Result]:
        return (apply.Result(before=one, after=one, action=api.APPLY_ACTION_PRUNED) for one in self.doomed)

    def others(self, there: Iterable[kinds.StoredObject]) -> Iterator[kinds.StoredObject]:
        """What is there once they are told to go: the services until their tasks have ended, the networks not."""
        going = {apply.identity(one): one for one in self.doomed}
        marked = {apply.identity(one.value): one.value for one in self.changes if isinstance(one, plan.Write)}
        for one in there:
            name = apply.identity(one)
            if name not in going:
                yield one
            elif name in marked:
                yield marked[name]


NOTHING = Pruning()


def stack_of(wanted: Sequence[kinds.StoredObject]) -> str:
    """The one stack of all objects. Raises Invalid when they have none, or several."""
    named = {one.meta.stack for one in wanted if kinds.of(one).namespaced}
    if not named or "" in named:
        raise errors.Invalid("which stack is to be pruned?", hint="name it with --stack, or in each meta.stack")
    if len(named) > 1:
        raise errors.Invalid(
            f"these objects are of {len(named)} stacks: {', '.join(sorted(named))}", hint="prune one stack at a time"
        )
    return named.pop()


def missing(there: Iterable[kinds.StoredObject], wanted: Sequence[kinds.StoredObject]) -> list[kinds.StoredObject]:
    """The objects of the stack that are there and not among those that are wanted, services first."""
    stack = stack_of(wanted)
    namespaces = {one.meta.namespace for one in wanted if kinds.of(one).namespaced}
    kept = {apply.identity(one) for one in wanted}
    found = [
        one
        for one in there
        if isinstance(one, pb.Service | pb.Network)
        and one.meta.stack == stack
        and one.meta.namespace in namespaces
        and not one.meta.deleted_at
        and apply.identity(one) not in kept
    ]
    return sorted(found, key=lambda one: (isinstance(one, pb.Network), kinds.key(one)))


def decide(
    doomed: Sequence[kinds.StoredObject],
    there: Iterable[kinds.StoredObject],
    wanted: Sequence[kinds.StoredObject],
    *,
    agreed: Iterable[str] | None,
    now_ms: int,
) -> Pruning:
    """How the doomed objects end. `agreed`: the ids that somebody has agreed to; None for a look only."""
    unknown = [one for one in doomed if agreed is not None and one.meta.id not in set(agreed)]
    if unknown:
        text = f"{kinds.label(unknown[0])} is in the stack, too, and nobody has agreed to its end"
        raise errors.Outdated(text, hint="apply again, and look at what would go")
    services: dict[apply.Identity, pb.Service] = {}
    for one in (*there, *wanted):
        if isinstance(one, pb.Service):
            services[apply.identity(one)] = one
    for one in doomed:
        services.pop(apply.identity(one), None)
    changes: list[plan.Change] = []
    for one in doomed:
        if isinstance(one, pb.Service):
            changes.append(plan.Write(value=edits.mark_deleted(one, now_ms=now_ms), why="pruned"))
        elif isinstance(one, pb.Network):
            relations.check_unused(one, services.values())
            changes.append(plan.Remove(value=one, why="pruned"))
    return Pruning(doomed=tuple(doomed), changes=tuple(changes))
