"""What must hold at rest: after the faults have ended and time has passed, the store and the machines agree."""

from collections import Counter
from collections.abc import Iterator, Mapping

from agent.core.record import Record
from protos import containers, kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import crowd_rules, particulars, zones
from tests.sim.processes import EVENTS
from tests.sim.rules import Rules


def unrest(rules: Rules, running: Mapping[str, frozenset[str]], records: Mapping[str, Record]) -> list[str]:
    """What is not as it should be. `running`: the containers that run, by node id; `records`: what agents have noted of
    tasks.
    """
    wrong = [*_unsettled(rules), *_not_whole(rules), *_strays(rules, running), *_left_over(rules)]
    wrong += [*_held(rules), *_too_many_revisions(rules)]
    return [*wrong, *_other_images(rules, records), *_too_many_events(rules)]


def _unsettled(rules: Rules) -> Iterator[str]:
    for service in rules.services():
        if service.meta.deleted_at:
            yield f"{kinds.label(service)} is still being deleted"
        elif service.spec.ttl:
            yield f"{kinds.label(service)} is there for a while only, and still there"
        elif not service.status.settled or service.status.observed_generation != service.meta.generation:
            yield f"{kinds.label(service)} is not settled: {service.status.message}"


def _held(rules: Rules) -> Iterator[str]:
    """All of them are there."""
    for node in rules.nodes():
        if node.status.held:
            yield f"{kinds.label(node)} says that its tasks are held"


def _not_whole(rules: Rules) -> Iterator[str]:
    """What the service's status says is not asked here: the slots are counted, and the templates compared."""
    known = [one for one in rules.objects.values() if isinstance(one, pb.Revision)]
    templates = {one.meta.id: (one.written, one.restarted_at, dict(one.images)) for one in known}
    nodes = sorted(rules.nodes(), key=lambda node: node.meta.id)
    for service in rules.services():
        over = _over(rules, service) if particulars.is_job(service) else frozenset()
        serving = [
            (task.slot, task.target_node_id)
            for task in rules.tasks()
            if (task.meta.namespace, task.service) == (service.meta.namespace, service.meta.name)
            and (_runs(task) or task.meta.id in over)
            and templates[task.revision_id]
            == (service.spec.template, service.spec.restarted_at, dict(service.spec.images))
        ]
        wanted = [(number, "") for number in range(1, service.spec.replicas + 1)]
        if service.spec.mode == pb.SERVICE_MODE_GLOBAL:
            placement = service.spec.template.placement
            wanted = [(0, node.meta.id) for node in nodes if zones.suits(placement, node)]
        if sorted(serving) != wanted:
            yield f"{kinds.label(service)} wants {wanted}; {sorted(serving)} serve"
        if service.status.rollout.state != pb.ROLLOUT_STATE_COMPLETED:
            yield f"{kinds.label(service)}: its rollout is not completed: {service.status.rollout.message}"


def _runs(task: pb.Task) -> bool:
    return task.status.state == states.RUNNING and task.desired_state == pb.DESIRED_STATE_RUNNING


def _over(rules: Rules, service: pb.Service) -> frozenset[str]:
    """The tasks of a service that have done what their slots were there for."""
    key = service.meta.namespace, service.meta.name
    mine = [task for task in rules.tasks() if (task.meta.namespace, task.service) == key]
    return frozenset(task.meta.id for task in particulars.ended_well(mine).values())


def _too_many_revisions(rules: Rules) -> Iterator[str]:
    """Of those that no task has and no rollout speaks of as many are kept as was asked for, and the newest."""
    revisions = [one for one in rules.objects.values() if isinstance(one, pb.Revision)]
    used = {task.revision_id for task in rules.tasks()}
    for service in rules.services():
        if not service.spec.HasField("revision_history_limit"):
            continue
        rollout, limit = service.status.rollout, service.spec.revision_history_limit
        needed = used | {service.status.revision_id, rollout.revision_id, rollout.stable_revision_id}
        key = service.meta.namespace, service.meta.name
        mine = [one for one in revisions if (one.meta.namespace, one.service) == key]
        unused = [one for one in sorted(mine, key=lambda one: one.number)[:-1] if one.meta.id not in needed]
        if len(unused) > limit:
            yield f"{kinds.label(service)} keeps {len(unused)} old revisions, not {limit}"


def _strays(rules: Rules, running: Mapping[str, frozenset[str]]) -> Iterator[str]:
    alive = {task.meta.id: task for task in rules.tasks() if not states.is_terminal(task.status.state)}
    templates = rules.templates()
    for task in alive.values():
        here = running.get(task.node_id, frozenset())
        if task.node_id and task.meta.id not in here:
            yield f"task {task.meta.id} counts as {states.word(task.status.state)}; its container is gone"
        for lacking in crowd_rules.lacking(task, templates[task.revision_id], here):
            yield f"container {lacking} is missing beside its task"
    for node_id, there in running.items():
        for container in sorted(there):
            task_id, _ = containers.split(container)
            if task_id not in alive or alive[task_id].node_id != node_id:
                yield f"container {container} runs on {node_id} and no task wants it"


def _other_images(rules: Rules, records: Mapping[str, Record]) -> Iterator[str]:
    """A task runs the image that was settled when its revision was applied, whatever the name means by now. Of what
    nodes have by themselves, nothing is.
    """
    revisions = {one.meta.id: one for one in rules.objects.values() if isinstance(one, pb.Revision)}
    for task in rules.tasks():
        revision, record = revisions[task.revision_id], records.get(task.meta.id)
        settled = revision.image_digest
        if revision.template.container.image_pull_policy == pb.IMAGE_PULL_POLICY_NEVER:
            continue  # it may be settled for another of its containers
        if task.status.state == states.RUNNING and record is not None and record.image_digest != settled:
            yield f"task {task.meta.id} runs image {record.image_digest}, and {settled} was settled"


def _left_over(rules: Rules) -> Iterator[str]:
    services = {(one.meta.namespace, one.meta.name) for one in rules.services()}
    for task in rules.tasks():
        if (task.meta.namespace, task.service) not in services:
            yield f"task {task.meta.id} is left of a service that is gone"


def _too_many_events(rules: Rules) -> Iterator[str]:
    events = [one for one in rules.objects.values() if isinstance(one, pb.Event)]
    if len(events) > EVENTS.in_all + EVENTS.slack:
        yield f"{len(events)} events are kept, not {EVENTS.in_all} and {EVENTS.slack} more"
    for namespace, number in Counter(event.meta.namespace for event in events).items():
        if number > EVENTS.per_namespace + EVENTS.slack:
            yield f"{number} events are kept in {namespace}, not {EVENTS.per_namespace} and {EVENTS.slack} more"
