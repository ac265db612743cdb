"""Bugs in rollouts that somebody might really make, to be planted as those in `plants`."""

from collections.abc import Sequence

from controlplane.core import plan, replacing, rollout, slots
from protos.orch.v1 import objects_pb2 as pb


def keep_no_old(self: replacing.Course, slot: slots.Slot) -> Sequence[pb.Task]:
    """The new task has been made, so the old one can go."""
    del self
    return slot.old[:1] if slot.new is None else ()


def count_nothing_beside(self: replacing.Course, working: Sequence[slots.Slot], quota: int) -> object:
    """All that may change is begun at once."""
    able = [slot for slot in working if not slot.stopping]
    return [], able[: max(quota, 0)] if self.policy.surge else [], None


def never_stand_still(self: replacing.Course) -> bool:
    """A pause is kept in mind by nobody."""
    del self
    return False


def goal_of_the_spec(status: pb.RolloutStatus) -> str:
    """What the spec says is what is made, whatever became of it."""
    return status.revision_id


_right_follow = rollout.follow


def begin_again(service: pb.Service, target_id: str, now_ms: int) -> pb.RolloutStatus:
    """What was rolled back is tried again as soon as somebody looks."""
    status = _right_follow(service, target_id, now_ms)
    if status.state == rollout.ROLLED_BACK:
        status = plan.copy(status)
        status.state, status.counted_from = rollout.ROLLING, now_ms
    return status
