"""What a call does, for the audit log: which objects it names, and whether it changes anything at all.

The rule: no values, only which objects. Manifests may hold passwords, and so may commands.
"""

from collections.abc import Iterable
from typing import Any

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from protos.orch.v1 import trust_pb2 as pb_trust

MAX_OBJECTS = 20
MAX_NAME = 300
"""Characters of an object's name. Names that are good are shorter; a call with another one is refused, and told."""


def only_looks(request: Any) -> bool:
    """It asks how things are, or would be, by a call that else changes something."""
    if isinstance(request, pb_trust.RotateRootRequest):
        return not (request.begin or request.left_behind)
    return bool(getattr(request, "dry_run", False))


def changed_nothing(request: Any, answer: Any) -> bool:
    """It found everything as it was asked for.

    So a cluster at rest stays at rest, however often somebody applies the same files, or asks whether an exchange of
    the root has ended without those who are to be left behind.
    """
    if isinstance(answer, pb.ApplyResponse):
        return all(one.action == pb.APPLY_ACTION_UNCHANGED for one in answer.results)
    if isinstance(answer, pb_trust.RotateRootResponse):
        return not (request.begin or answer.left_behind)
    return False


def objects(request: Any, answer: Any = None) -> list[str]:
    """Which objects a call names, as far as it does: 20 names of 300 characters at most, and how many more."""
    names = list(_named(request, answer))
    more = [f"and {len(names) - MAX_OBJECTS} more"] if len(names) > MAX_OBJECTS else []
    return [name[:MAX_NAME] for name in names[:MAX_OBJECTS]] + more


def _named(request: Any, answer: Any) -> Iterable[str]:
    if isinstance(request, pb.ApplyRequest):
        yield from _applying(request) if answer is None else _applied(answer)
    elif isinstance(request, pb.ExecRequest | pb.CommitRequest | pb.ImportImageRequest | pb.PushBlobRequest):
        yield from _begun(request)
    elif isinstance(request, pb_trust.CreateTokenRequest):
        yield from _token(request)
    elif isinstance(request, pb_trust.RotateRootRequest):
        yield from _rotation(request, (request if answer is None else answer).left_behind)
    elif isinstance(reference := getattr(request, "reference", None), pb.ObjectReference):
        yield _label(reference.kind, reference.namespace, reference.name)
    else:
        yield from (str(value) for name in ("node", "name", "id") if (value := getattr(request, name, "")))


def _applying(request: pb.ApplyRequest) -> Iterable[str]:
    """What it asks for. What else would end is known once it has."""
    if request.prune:
        yield f"what else stack {request.stack} has"
    for one in request.objects:
        yield from _object(one)


def _applied(answer: pb.ApplyResponse) -> Iterable[str]:
    """What is another now; first what has ended, so that no long list hides it."""
    for one in answer.results:
        if one.action == pb.APPLY_ACTION_PRUNED:
            yield from (f"{name} (ended)" for name in _object(one.object))
    for one in answer.results:
        if one.action in (pb.APPLY_ACTION_CREATED, pb.APPLY_ACTION_CHANGED):
            yield from _object(one.object)


def _object(envelope: objects_pb2.Object) -> Iterable[str]:
    kind = envelope.WhichOneof("kind")
    if kind is not None:
        meta = getattr(envelope, kind).meta
        yield _label(kind, meta.namespace, meta.name)


def _begun(first: pb.ExecRequest | pb.CommitRequest | pb.ImportImageRequest | pb.PushBlobRequest) -> Iterable[str]:
    """Of the first message of a call that brings several: what else a stream begins with names nothing."""
    if isinstance(first, pb.ExecRequest) and first.HasField("start"):
        yield _label("target", first.start.namespace, first.start.target)  # a task's name, or a service's
    elif isinstance(first, pb.CommitRequest) and first.HasField("start"):
        yield _label("task", first.start.namespace, first.start.task)
    elif isinstance(first, pb.ImportImageRequest) and first.options.name:
        yield _label("image", "", first.options.name)
    elif isinstance(first, pb.PushBlobRequest) and first.HasField("start"):
        yield _label("blob", "", first.start.digest)


def _token(request: pb_trust.CreateTokenRequest) -> Iterable[str]:
    """What whoever joins with it may do: all of it, since a token for everything is worth more than one for a shop."""
    yield f"role {request.role}"
    if request.person:
        yield f"person {request.person}"
    yield from (f"namespace {one}" for one in request.namespaces)
    if request.replaces:
        yield f"instead of {request.replaces}"


def _rotation(request: pb_trust.RotateRootRequest, left_behind: Iterable[str]) -> Iterable[str]:
    if request.begin:
        yield "a new root"
    yield from (f"{name} left behind" for name in left_behind)


def _label(kind: str, namespace: str, name: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
