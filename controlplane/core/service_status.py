"""Where a service stands, in figures and in one sentence."""

from collections import Counter
from collections.abc import Collection, Sequence

from controlplane.core import slots, tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb


def of(
    service: pb.Service, wanted: Sequence[slots.Slot], revision: pb.Revision, members: Collection[pb.Task]
) -> pb.ServiceStatus:
    """The status of a service whose slots are `wanted` and whose tasks are `members`."""
    filling = [slot.task for slot in wanted if slot.task is not None]
    ready = [task for task in filling if tasks.is_ready(task)]
    done = sum(slots.is_done(slot, revision) for slot in wanted)
    updated = sum(task.revision_id == revision.meta.id for task in ready)
    filled = {task.meta.id for task in filling}
    leaving = sum(task.meta.id not in filled and not states.is_terminal(task.status.state) for task in members)
    return pb.ServiceStatus(
        observed_generation=service.meta.generation,
        replicas=len(wanted),
        running=sum(task.status.state == states.RUNNING for task in filling),
        ready=len(ready),
        updated=updated,
        revision_id=revision.meta.id,
        settled=updated + done == len(wanted) and leaving == 0,
        message=_sentence(wanted, revision, updated=updated, ready=len(ready), done=done, leaving=leaving),
    )


def _sentence(
    wanted: Sequence[slots.Slot], revision: pb.Revision, *, updated: int, ready: int, done: int, leaving: int
) -> str:
    """Such as `2 of 3 ready; updating to revision 4: 1 of 3 replaced; slot 2: no node has enough memory`."""
    parts = [f"{ready} of {len(wanted)} ready"]
    if done:
        parts.append(f"{done} ended")
    if any(slot.task is not None and slot.task.revision_id != revision.meta.id for slot in wanted):
        parts.append(f"updating to revision {revision.number}: {updated} of {len(wanted)} replaced")
    if leaving:
        parts.append(f"{leaving} stopping")
    trouble = _trouble(wanted, revision)
    if trouble:
        parts.append(trouble)
    return "; ".join(parts)


def _trouble(wanted: Sequence[slots.Slot], revision: pb.Revision) -> str:
    """The most frequent reason why slots are not ready, and how many it holds up."""
    reasons = Counter(_reason(slot, revision) for slot in wanted)
    reasons.pop("", None)
    if not reasons:
        return ""
    # Ties go to the alphabet: the sentence must not flicker.
    text, count = min(reasons.items(), key=lambda item: (-item[1], item[0]))
    return text if count == 1 else f"{text} ({count} slots)"


def _reason(slot: slots.Slot, revision: pb.Revision) -> str:
    if slot.task is not None and not tasks.is_ready(slot.task):
        return slot.task.status.message if slot.task.status.reason or slot.task.status.refusals else ""
    if slot.task is None and slot.ended and tasks.failed(slot.ended[0]) and not slots.is_done(slot, revision):
        return slot.ended[0].status.message
    return ""
