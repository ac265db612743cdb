"""Decides what an apply does: which objects are made, changed or left alone, and why it is refused.

Two rules. All or nothing: one mistake anywhere refuses everything, and all mistakes are told at once. And an object
that is equal already is not written.

The user's fields are those that carry no `system` rule. They replace what is stored; system fields and the status of
what was sent are ignored, so that what `get -o yaml` prints can be applied again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import Message

from controlplane.core import lifetime, pins, plan, relations
from controlplane.core import request_errors as errors
from controlplane.store import api as store
from manifests import defaults, diff, rules
from protos import kinds, schema
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

MAX_CHANGES = store.MAX_OPERATIONS

DEFAULT_NAMESPACE = "default"
OUTDATED_HINT = (
    "get the object again and repeat the change on it, or take meta.version out of the file; --force applies it anyway"
)

Identity: TypeAlias = tuple[str, str, str]
"""Kind, namespace (empty where there is none) and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What becomes of one object. `before` is None when it is new; `after` is `before` when nothing changes."""

    before: kinds.StoredObject | None
    after: kinds.StoredObject
    action: "api.ApplyAction.ValueType"
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The results in the order of the request, and what has to be written for them."""

    results: tuple[Result, ...]

    @property
    def changes(self) -> tuple[plan.Write, ...]:
        """One for each object that is new or different."""
        return tuple(plan.Write(value=result.after, why="applied") for result in self.different())

    def different(self) -> tuple[Result, ...]:
        """Those that something is written for."""
        return tuple(result for result in self.results if result.action != api.APPLY_ACTION_UNCHANGED)


def identity(value: kinds.StoredObject) -> Identity:
    """By what a manifest names the object."""
    kind = kinds.of(value)
    return kind.name, value.meta.namespace if kind.namespaced else "", value.meta.name


def prepare(
    wanted: Sequence[kinds.StoredObject], *, stack: str = "", force: bool = False
) -> tuple[kinds.StoredObject, ...]:
    """Copies of the objects with their namespace and stack filled in. Raises Invalid with every mistake that they have.

    `force`: whatever version they were made from.
    """
    prepared = tuple(_with_place(value, stack, force=force) for value in wanted)
    mistakes = [mistake for value in prepared for mistake in _mistakes(value)]
    mistakes += [mistake for value in prepared for mistake in _other_stack(value, stack)]
    mistakes += _duplicates(prepared)
    if mistakes:
        raise errors.of_mistakes(errors.Invalid, mistakes)
    return prepared


def decide(
    existing: Mapping[Identity, kinds.StoredObject],
    wanted: Sequence[kinds.StoredObject],
    *,
    others: Iterable[kinds.StoredObject] = (),
    images: pins.Known,
    now_ms: int,
    new_id: Callable[[], str],
    asked_by: str = "",
) -> Decision:
    """What to do about each of the prepared objects, given those that are there under their names, and all others.
    `images`: those of the cluster; `asked_by`: who applies them, for the history of rollouts.

    Raises Outdated, NotNow or Unknown with every refusal when several objects have one.
    """
    refusals = [refusal for value in wanted for refusal in _refusals(existing.get(identity(value)), value, now_ms)]
    refusals += relations.refusals(wanted, relations.Surroundings.after(others, wanted))
    refusals += [refusal for value in wanted for refusal in _images(existing.get(identity(value)), value, images)]
    if refusals:
        raise _of_refusals(refusals)
    merged = [_pinned(existing.get(identity(value)), value, images, asked_by) for value in wanted]
    results = tuple(_result(existing.get(identity(one)), one, now_ms=now_ms, new_id=new_id) for one in merged)
    return Decision(results=results)


def changed(before: kinds.StoredObject, after: kinds.StoredObject, *, now_ms: int) -> kinds.StoredObject:
    """`after` with the generation and time that the change from `before` gives it; `before` when they are equal."""
    if after == before:
        return before
    stamped = plan.copy(after)
    if _without_meta(before) != _without_meta(after):
        stamped.meta.generation = before.meta.generation + 1
        stamped.meta.updated_at = now_ms
    return stamped


def check_size(changes: Sequence[plan.Change]) -> None:
    """Raises Invalid for more than the store can write all or nothing."""
    size_bytes = sum(len(change.key) + change.value.ByteSize() for change in changes)
    for number, most, what in ((len(changes), MAX_CHANGES, "objects"), (size_bytes, store.MAX_COMMIT_BYTES, "bytes")):
        if number > most:
            raise errors.Invalid(
                f"this apply changes {number} {what}; {most} is the most that can be written all or nothing",
                hint="apply the files in several calls",
            )


def _with_place(value: kinds.StoredObject, stack: str, *, force: bool) -> kinds.StoredObject:
    prepared = plan.copy(value)
    if kinds.of(value).namespaced:
        prepared.meta.namespace = value.meta.namespace or DEFAULT_NAMESPACE
        prepared.meta.stack = value.meta.stack or stack
    if force:
        prepared.meta.version = 0
    return prepared


# Mistakes ---------------------------------------------------------------------------------------------------------


def _mistakes(value: kinds.StoredObject) -> Iterator[errors.Mistake]:
    """What is wrong with the object by itself."""
    if not kinds.of(value).written_by_people:
        titles = " and ".join(kind.title for kind in kinds.written_by_people())
        text = f"the system makes these; {titles} can be applied"
        yield errors.Mistake(object=kinds.label(value), path="", message=text)
        return
    for problem in rules.validate(value):
        text = f"{problem.message}; {problem.hint}" if problem.hint else problem.message
        yield errors.Mistake(object=kinds.label(value), path=problem.path, message=text)


def _other_stack(value: kinds.StoredObject, stack: str) -> Iterator[errors.Mistake]:
    if stack and kinds.of(value).namespaced and value.meta.stack != stack:
        text = f"it is of the stack {value.meta.stack}, and not of {stack}"
        yield errors.Mistake(object=kinds.label(value), path="meta.stack", message=text)


def _duplicates(prepared: Sequence[kinds.StoredObject]) -> Iterator[errors.Mistake]:
    seen: set[Identity] = set()
    for value in prepared:
        if identity(value) in seen:
            text = "it is there twice; say everything about it in one object"
            yield errors.Mistake(object=kinds.label(value), path="", message=text)
        seen.add(identity(value))


# Refusals ---------------------------------------------------------------------------------------------------------


# An error has one status code and one hint: those of the first kind here.
_PRECEDENCE: Sequence[type[errors.RequestError]] = (
    errors.Outdated,
    errors.Invalid,
    errors.NotNow,
    errors.Unknown,
)


def _of_refusals(refusals: Sequence[relations.Refusal]) -> errors.RequestError:
    first = min(refusals, key=lambda refusal: _PRECEDENCE.index(refusal.error))
    ordered = [first, *(refusal for refusal in refusals if refusal is not first)]
    return errors.of_mistakes(first.error, [refusal.mistake for refusal in ordered], hint=first.hint)


def _refusals(
    before: kinds.StoredObject | None, wanted: kinds.StoredObject, now_ms: int
) -> Iterator[relations.Refusal]:
    """Why this object cannot be applied onto what is there."""

    def refusal(error: type[errors.RequestError], path: str, message: str, hint: str) -> relations.Refusal:
        mistake = errors.Mistake(object=kinds.label(wanted), path=path, message=message)
        return relations.Refusal(error=error, mistake=mistake, hint=hint)

    version = before.meta.version if before else 0
    if wanted.meta.version not in {0, version} and not _is_same_wish(before, wanted):
        there = f"is at version {version} now" if before else "is gone"
        message = f"the object {there}, and the change was made to version {wanted.meta.version}"
        yield refusal(errors.Outdated, "meta.version", message, OUTDATED_HINT)
    if before is None:
        if isinstance(wanted, pb.Node):
            hint = "start an agent on the machine; `orchctl node ls` lists the nodes that have joined"
            yield refusal(errors.Unknown, "", "no node of this name has joined the cluster", hint)
        return
    if before.meta.deleted_at:
        hint = f"wait until it is gone (`orchctl get {kinds.of(before).name} {before.meta.name} -w`), then apply again"
        yield refusal(errors.NotNow, "", "the object is being deleted", hint)
    for problem in rules.validate_change(defaults.resolve(before), defaults.resolve(wanted)):
        yield refusal(errors.NotNow, problem.path, problem.message, problem.hint)
    if (
        isinstance(before, pb.Service)
        and isinstance(wanted, pb.Service)
        and lifetime.ends_at_once(before, wanted, now_ms)
    ):
        age = lifetime.age(before, now_ms)
        message = f"it counts from when the service was made, {age} ago, so that this would delete it at once"
        hint = f"write more than {age}, or `orchctl delete service {before.meta.name}`"
        yield refusal(errors.NotNow, "spec.ttl", message, hint)


def _images(
    before: kinds.StoredObject | None, wanted: kinds.StoredObject, known: pins.Known
) -> Iterator[relations.Refusal]:
    if isinstance(wanted, pb.Service):
        yield from pins.refusals(wanted, before if isinstance(before, pb.Service) else None, known)


def _is_same_wish(before: kinds.StoredObject | None, wanted: kinds.StoredObject) -> bool:
    """Nothing would be overwritten: what people say has not changed since, or it is what is wanted already.

    Versions also rise when the system writes a status, which takes nothing away from anybody. The generation tells
    whether the spec has changed since; what people say in `meta`, such as labels or the stack, raises none, and has to
    be the same.
    """
    if before is None:
        return False
    if not diff.changes(before, _merged(before, wanted, "")):
        return True
    return wanted.meta.generation == before.meta.generation and not diff.changes(before.meta, wanted.meta)


# Results ----------------------------------------------------------------------------------------------------------


def _result(
    before: kinds.StoredObject | None, merged: kinds.StoredObject, *, now_ms: int, new_id: Callable[[], str]
) -> Result:
    if before is None:
        return Result(before=None, after=_new(merged, now_ms=now_ms, new_id=new_id), action=api.APPLY_ACTION_CREATED)
    after = changed(before, merged, now_ms=now_ms)
    if after is before:
        return Result(before=before, after=before, action=api.APPLY_ACTION_UNCHANGED)
    return Result(before=before, after=after, action=api.APPLY_ACTION_CHANGED, changes=tuple(_lines(before, after)))


def _lines(before: kinds.StoredObject, after: kinds.StoredObject) -> Iterator[str]:
    """What has changed, what the names of images mean included."""
    yield from diff.changes(before, after)
    if isinstance(before, pb.Service) and isinstance(after, pb.Service):
        yield from pins.moved(before.spec.images, after.spec.images)


def _new(merged: kinds.StoredObject, *, now_ms: int, new_id: Callable[[], str]) -> kinds.StoredObject:
    made = plan.copy(merged)
    made.meta.id = new_id()
    made.meta.generation = 1
    made.meta.created_at = made.meta.updated_at = now_ms
    replicated = isinstance(made, pb.Service) and made.spec.mode != pb.SERVICE_MODE_GLOBAL
    if isinstance(made, pb.Service) and replicated and not made.spec.HasField("replicas"):
        made.spec.replicas = 1
    return made


def _pinned(
    there: kinds.StoredObject | None, wanted: kinds.StoredObject, known: pins.Known, asked_by: str
) -> kinds.StoredObject:
    """The merged object, with what its images mean now."""
    after = _merged(there, wanted, asked_by)
    if isinstance(after, pb.Service):
        before = dict(after.spec.images)
        after.spec.ClearField("images")
        after.spec.images.update(pins.pinned(after.spec, known, before))
        if isinstance(there, pb.Service) and dict(after.spec.images) != before:
            ask_anew(after.spec, asked_by)
    return after


def _merged(there: kinds.StoredObject | None, wanted: kinds.StoredObject, asked_by: str) -> kinds.StoredObject:
    """The user's fields of `wanted` with the system's of what is there."""
    after, before = plan.copy(wanted), there if there is not None else type(wanted)()
    _take_system_fields(after, before)
    _take_system_fields(after.meta, before.meta)
    if isinstance(before, pb.Service) and isinstance(after, pb.Service):
        _take_system_fields(after.spec, before.spec)
        _keep_replicas(after.spec, before.spec)
        if after.spec.template != before.spec.template:
            ask_anew(after.spec, asked_by)
    return after


def ask_anew(spec: pb.ServiceSpec, asked_by: str) -> None:
    """Notes who asks for another template. What was said about the rollout of the one before counts no more."""
    spec.rollout.asked_by = asked_by
    spec.rollout.ClearField("promoted_revision_id")
    spec.rollout.ClearField("aborted_revision_id")


def _keep_replicas(after: pb.ServiceSpec, before: pb.ServiceSpec) -> None:
    """A manifest without a number leaves the one that `scale` set."""
    if before.HasField("replicas") and not after.HasField("replicas"):
        after.replicas = before.replicas


def _take_system_fields(target: Message, source: Message) -> None:
    for field, _ in target.ListFields():
        if schema.rules(field).system:
            target.ClearField(field.name)
    for field, value in source.ListFields():
        if schema.rules(field).system:
            if field.message_type is not None:
                getattr(target, field.name).MergeFrom(value)  # a message or a map, empty by now
            else:
                setattr(target, field.name, value)


def _without_meta(value: kinds.StoredObject) -> kinds.StoredObject:
    bare = plan.copy(value)
    bare.ClearField("meta")
    return bare
