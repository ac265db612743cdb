"""Why, and where to: what the scheduler would decide, answered from this instance's cache.

The rule: nothing is written. Any instance answers; what it tells is as old as its cache, and only the leader knows what
nodes have of the images.
"""

from controlplane.controllers import scheduling
from controlplane.core import foresight, lookup, revisions, why
from controlplane.core import request_errors as errors
from controlplane.store import snapshots
from manifests import defaults
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb


def present(state: snapshots.Snapshot, outlook: scheduling.Outlook) -> foresight.Present:
    """What is there now."""
    return foresight.Present(
        nodes=list(state.all(pb.Node).values()),
        tasks=list(state.all(pb.Task).values()),
        revisions=list(state.all(pb.Revision).values()),
        rules=scheduling.rules_of(state, outlook),
    )


def answer(
    state: snapshots.Snapshot, request: api.WhyRequest, outlook: scheduling.Outlook, now_ms: int
) -> api.WhyResponse:
    """Raises Unknown for a task, service or node that is not there."""
    here = present(state, outlook)
    templates = {one.meta.id: one.template for one in here.revisions}
    task = _meant(state, request, templates)
    return why.explain(
        task,
        nodes=here.nodes,
        placed=[one for one in here.tasks if one.node_id],
        templates=templates,
        rules=here.rules,
        now_ms=now_ms,
        only=lookup.node(state, request.node).meta.id if request.node else "",
    )


def _meant(state: snapshots.Snapshot, request: api.WhyRequest, templates: dict[str, pb.TaskTemplate]) -> pb.Task:
    """The task that is named; for a service one that is only thought of."""
    namespace = request.namespace or lookup.DEFAULT_NAMESPACE
    if not request.name:
        raise errors.Invalid("no name was given: which task or service?")
    service = state.get(pb.Service, request.name, namespace=namespace)
    if service is None:
        return lookup.task(state, namespace, request.name)
    newest = revisions.present(service, state.revisions_of(namespace, service.meta.name).values())
    if newest is None:
        templates[""] = defaults.resolve(service.spec.template)
    return pb.Task(
        meta=pb.Meta(namespace=namespace),
        service=service.meta.name,
        revision_id=newest.meta.id if newest is not None else "",
        status=pb.TaskStatus(state=states.NEW),
    )
