"""What `update` of a service means in figures: how many tasks at a time, how long to wait, and what is a failure.

The rule: figures are worked out for the number of tasks that there are to be now, so that scaling during a rollout
counts at once.

    parallelism 2, start-first, 10 tasks      surge 2, missing 0
    parallelism 2, stop-first, 10 tasks       surge 0, missing 2
    maxSurge 25%, maxUnavailable 25%, 10      surge 3 (rounded up), missing 2 (rounded down)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from controlplane.core import amounts, demand
from manifests import defaults
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of a service for a number of tasks. At least one of `surge` and `missing` is more than 0."""

    surge: int
    """Tasks beyond those that there are to be."""
    missing: int
    """Tasks that may be missing."""
    together: bool
    """The old ones stay until every new one is ready (blue/green)."""
    delay_ms: int
    monitor_ms: int
    deadline_ms: int
    ratio: Fraction
    on_failure: pb.UpdateFailureAction.ValueType
    canary: int

    @property
    def goes_on(self) -> bool:
        """Failures do not stop it: what has failed is left behind until the end."""
        return self.on_failure == pb.UPDATE_FAILURE_ACTION_CONTINUE

    def is_failure(self, failed: int, number: int) -> bool:
        """Whether so many failures among so many tasks are too many. Example: ratio 0.25 of 8 → the third is."""
        return failed > self.ratio * number


def of(spec: pb.ServiceSpec, template: pb.TaskTemplate, number: int, before: Iterable[pb.TaskTemplate] = ()) -> Policy:
    """The policy for `number` tasks of a template. `before`: those of tasks that may have to make way for them."""
    update: pb.UpdatePolicy = defaults.resolve(spec.update)
    if spec.on_node_loss.fence and not update.max_unavailable:
        update.order = pb.UPDATE_ORDER_STOP_FIRST
    surge, missing = _amounts(update, template, number)
    return Policy(
        surge=surge,
        missing=missing,
        together=update.parallelism == 0 and missing == 0 and not update.max_surge,
        delay_ms=update.delay,
        monitor_ms=update.monitor,
        deadline_ms=update.progress_deadline + (max(map(_stop_ms, (template, *before))) if missing else 0),
        ratio=_ratio(update.max_failure_ratio),
        on_failure=update.on_failure,
        canary=update.canary,
    )


def _stop_ms(template: pb.TaskTemplate) -> int:
    """How long a task may take to make way: what comes after it cannot be ready before. Its containers stop one after
    another, the main one first.
    """
    return template.stop_grace_period * (1 + len(template.sidecars)) + template.drain_seconds * 1000


def order_of(update: pb.UpdatePolicy, template: pb.TaskTemplate) -> pb.UpdateOrder.ValueType:
    """Two tasks cannot have one port of a node, or one of its things, so those that take such stop first."""
    if update.order != pb.UPDATE_ORDER_UNSPECIFIED:
        return update.order
    return pb.UPDATE_ORDER_STOP_FIRST if single(template) else pb.UPDATE_ORDER_START_FIRST


def single(template: pb.TaskTemplate) -> str:
    """What its tasks take of their nodes that two cannot have: `port 80`, `gpu`; empty when there is no such thing."""
    taken = demand.of(template)
    ports = sorted(f"port {number}" for _, number in taken.ports)
    return next(iter((*ports, *taken.generic)), "")


def _amounts(update: pb.UpdatePolicy, template: pb.TaskTemplate, number: int) -> tuple[int, int]:
    if update.max_surge or update.max_unavailable:
        surge = amounts.of(update.max_surge, number, up=True)
        missing = min(amounts.of(update.max_unavailable, number, up=False), number)
        return (surge, missing) if surge or missing else (0, 1)
    at_a_time = update.parallelism or max(number, 1)
    first = order_of(update, template) == pb.UPDATE_ORDER_START_FIRST
    return (at_a_time, 0) if first else (0, at_a_time)


def _ratio(text: str) -> Fraction:
    return Fraction(int(text[:-1]), 100) if text.endswith("%") else Fraction(text)
