"""Where a service stands, in figures and in one sentence."""

from collections import Counter
from collections.abc import Collection

from controlplane.core import replacing, rollout, slots, tasks
from protos import crashes, states
from protos.orch.v1 import objects_pb2 as pb


def of(
    service: pb.Service, course: replacing.Course, target: pb.Revision, members: Collection[pb.Task]
) -> pb.ServiceStatus:
    """The status of a service whose rollout to `target` is at `course` and whose tasks are `members`."""
    wanted, goal = course.members, course.goal
    filling = [slot.task for slot in wanted if slot.task is not None]
    ready = sum(map(tasks.is_ready, filling))
    updated = sum(slot.new_works for slot in wanted)
    kept = {task.meta.id for slot in wanted for task in slot.live}
    leaving = sum(task.meta.id not in kept and not states.is_terminal(task.status.state) for task in members)
    whole = all(slots.is_good(slot, goal) for slot in wanted) and not any(len(slot.live) > 1 for slot in wanted)
    asked_for = goal.meta.id == target.meta.id and not course.status.reason
    told = course.status
    told.message = rollout.sentence(told, goal, target, len(wanted))
    return pb.ServiceStatus(
        observed_generation=service.meta.generation,
        replicas=len(wanted),
        running=sum(task.status.state == states.RUNNING for task in filling),
        ready=ready,
        updated=updated if goal.meta.id == target.meta.id else 0,
        revision_id=target.meta.id,
        settled=whole and asked_for and leaving == 0 and not (service.spec.stopped and wanted),
        message=_sentence(service, course, ready=ready, leaving=leaving),
        rollout=told,
    )


def _sentence(service: pb.Service, course: replacing.Course, *, ready: int, leaving: int) -> str:
    """Such as `2 of 3 ready; updating to revision 4: 1 of 3 replaced; slot 2: no node has enough memory`."""
    wanted = course.members
    parts = ["stopped"] if service.spec.stopped else [f"{ready} of {len(wanted)} ready"]
    if done := sum(slots.is_done(slot, course.goal) for slot in wanted):
        parts.append(f"{done} ended")
    if course.is_worth_telling():
        parts.append(course.status.message)
    if leaving:
        parts.append(f"{leaving} stopping")
    if trouble := _trouble(course):
        parts.append(trouble)
    return "; ".join(parts)


def _trouble(course: replacing.Course) -> str:
    """The most frequent reason why slots are not ready, and how many it holds up."""
    reasons = Counter(_reason(slot, course.goal) for slot in course.members)
    reasons.pop("", None)
    if not reasons:
        return ""
    # Ties go to the alphabet: the sentence must not flicker.
    text, count = min(reasons.items(), key=lambda item: (-item[1], item[0]))
    return text if count == 1 else f"{text} ({count} slots)"


def _reason(slot: slots.Slot, revision: pb.Revision) -> str:
    task = slot.new or slot.task
    if task is not None and not tasks.is_ready(task):
        loop = "crash loop: " if crashes.is_looping(task) else ""
        return loop + task.status.message if task.status.reason or task.status.refusals else ""
    if task is None and slot.last is not None and tasks.failed(slot.last) and not slots.is_done(slot, revision):
        return ("crash loop: " if crashes.is_looping(slot.last) else "") + slot.last.status.message
    return ""
