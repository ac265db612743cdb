"""Apply, delete, scale and changes of labels and nodes: read from the store, decide, commit with compare-and-swap.

Three rules. A decision is made on what the store itself answers, not on the cache, which may be a moment behind.
What was changed by somebody else in between is decided anew, a bounded number of times. And before a write is
answered this instance's cache shows it, so that the caller's next read does.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from controlplane.api import changing, placement, ports
from controlplane.controllers import scheduling
from controlplane.controllers.rebalancing import situation_of
from controlplane.core import apply as deciding
from controlplane.core import (
    edits,
    foresight,
    lifetime,
    lookup,
    pins,
    plan,
    prune,
    rebalance,
    rollout_edits,
    telling,
    warnings,
)
from controlplane.core import request_errors as errors
from controlplane.store import api, cache, typed
from controlplane.store import errors as store_errors
from protos import kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2

MAX_OBJECTS = 1_000
"""Objects of one apply; at most 128 of them may differ from what is there."""

_PLAIN = scheduling.Outlook()

_log = structlog.get_logger()


class Writes:
    """What changes the objects. `new_id` makes ids that are never used again; `outside` knows what images of registries
    mean; `along_with_removal`: what else goes in the same commit as an object that is removed.
    """

    def __init__(
        self,
        store: api.Store,
        known: cache.Cache,
        *,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
        outlook: scheduling.Outlook = _PLAIN,
        outside: ports.Outside | None = None,
        along_with_removal: changing.AlongWithRemoval = changing.nothing_else,
    ) -> None:
        self._objects = changing.Objects(
            store, known, now_ms=now_ms, new_id=new_id, along_with_removal=along_with_removal
        )
        self._cache = known
        self._now_ms = now_ms
        self._new_id = new_id
        self._outlook = outlook
        self._outside = outside

    # Apply ------------------------------------------------------------------------------------------------------------

    async def apply(self, request: pb.ApplyRequest, actor: str = "") -> pb.ApplyResponse:
        if len(request.objects) > MAX_OBJECTS:
            text = f"{len(request.objects)} objects are more than the {MAX_OBJECTS} that one apply takes"
            raise errors.Invalid(text, hint="apply the files in several calls")
        sent = [_unwrap(envelope) for envelope in request.objects]
        wanted = deciding.prepare(sent, stack=request.stack, force=request.force)
        elsewhere: dict[str, str] = {}
        for _ in range(changing.ATTEMPTS):
            existing = await self._existing(wanted)
            pruning = await self._pruning(request, wanted)
            decision = deciding.decide(
                existing,
                wanted,
                others=pruning.others(self._others()),
                images=await self._images(wanted, elsewhere),
                now_ms=self._now_ms(),
                new_id=self._new_id,
                asked_by=actor,
            )
            changes: Sequence[plan.Change] = (*decision.changes, *pruning.changes)
            deciding.check_size(changes)
            results = (*decision.results, *pruning.results())
            if request.dry_run or not changes:
                applied = self._applied(results, self._cache.revision)
                if request.dry_run:
                    forecast = self._placements(decision)
                    applied.placements.extend(forecast.tasks)
                    applied.unplanned = forecast.left_out
                return applied
            with contextlib.suppress(store_errors.Conflict):
                told = [
                    self._objects.told(one.after, *telling.of_apply(one), actor)
                    for one in (*decision.different(), *pruning.results())
                ]
                revision = await self._objects.commit(list(map(typed.of_change, changes)), told)
                for change in changes:
                    change.value.meta.version = revision
                # The values stay out of the log: an environment may hold passwords.
                _log.info("applied", objects=[kinds.label(change.value) for change in changes], actor=actor)
                return self._applied(results, revision)
        raise changing.busy("the objects")

    async def _pruning(self, request: pb.ApplyRequest, wanted: Sequence[kinds.StoredObject]) -> prune.Pruning:
        """What goes with this apply, as the store has it now."""
        if not request.prune:
            return prune.NOTHING
        there = list(self._others())
        known = prune.missing(there, wanted)
        fresh = await self._objects.read([kinds.key(one) for one in known])
        doomed = prune.missing(fresh.values(), wanted)
        agreed = None if request.dry_run else request.agreed
        return prune.decide(doomed, there, wanted, agreed=agreed, now_ms=self._now_ms())

    async def _existing(self, wanted: Sequence[kinds.StoredObject]) -> Mapping[deciding.Identity, kinds.StoredObject]:
        """What the store holds of the objects that are named."""
        keys: dict[str, deciding.Identity] = {}
        for value in wanted:
            key = self._key_of(value)
            if key is not None:
                keys[key] = deciding.identity(value)
        return {keys[value_key]: value for value_key, value in (await self._objects.read(keys)).items()}

    async def _images(self, wanted: Sequence[kinds.StoredObject], elsewhere: dict[str, str]) -> pins.Known:
        """The cluster's images; those that the objects name as the store itself has them. `elsewhere`: what registries
        have told this apply already, and what they tell now: they may take seconds, and are asked once.
        """
        keys = [kinds.key(objects_pb2.Image(meta=objects_pb2.Meta(name=name))) for name in pins.names(wanted)]
        images = {**self._cache.snapshot().all(objects_pb2.Image)}
        for key in keys:
            images.pop(key, None)
        images.update(
            {key: one for key, one in (await self._objects.read(keys)).items() if isinstance(one, objects_pb2.Image)}
        )
        known = pins.Known.of(images.values())
        unknown = pins.of_registries(wanted, known)
        if unknown - elsewhere.keys() and self._outside is not None:
            told = await self._outside.resolve(unknown - elsewhere.keys())
            elsewhere.update({text: told.get(text, "") for text in unknown - elsewhere.keys()})
        return pins.Known.of(images.values(), elsewhere)

    def _others(self) -> Iterable[kinds.StoredObject]:
        """What the objects have to get on with, as far as it is known here."""
        state = self._cache.snapshot()
        return [*state.all(objects_pb2.Service).values(), *state.all(objects_pb2.Network).values()]

    def _key_of(self, value: kinds.StoredObject) -> str | None:
        """The key of a named object; None for a node that nobody has seen, since nodes are keyed by id."""
        if isinstance(value, objects_pb2.Node):
            with contextlib.suppress(errors.Unknown):
                return kinds.key(lookup.node(self._cache.snapshot(), value.meta.name))
            return None
        return kinds.key(value)

    def _applied(self, results: Sequence[deciding.Result], revision: int) -> pb.ApplyResponse:
        state = self._cache.snapshot()
        images = tuple(state.all(objects_pb2.Image).values())
        empty = warnings.emptied(state.all(objects_pb2.Node).values())
        services = {kinds.qualified(one): one for one in state.all(objects_pb2.Service).values()}
        applied = [one.after for one in results if isinstance(one.after, objects_pb2.Service)]
        services |= {kinds.qualified(one): one for one in applied}
        return pb.ApplyResponse(
            results=[
                pb.ApplyResult(
                    object=kinds.wrap(result.after),
                    action=result.action,
                    changes=result.changes,
                    warnings=(
                        *warnings.warnings(result.after, images=images, empty=empty, services=services),
                        *lifetime.told(result.before, result.after, self._now_ms()),
                    ),
                    before=kinds.wrap(result.before) if result.before is not None else None,
                )
                for result in results
            ],
            revision=revision,
        )

    def _placements(self, decision: deciding.Decision) -> foresight.Forecast:
        services = [one.after for one in decision.results if isinstance(one.after, objects_pb2.Service)]
        there = placement.present(self._cache.snapshot(), self._outlook)
        return foresight.placements(services, there, self._now_ms())

    # One object ---------------------------------------------------------------------------------------------------

    async def scale(self, request: pb.ScaleRequest, actor: str = "") -> pb.ScaleResponse:
        def edit(value: kinds.StoredObject) -> kinds.StoredObject:
            if not isinstance(value, objects_pb2.Service):
                raise errors.Invalid(f"{kinds.label(value)} has no replicas", hint="services can be scaled")
            return edits.scale(value, request.replicas, now_ms=self._now_ms())

        def told(before: kinds.StoredObject, after: kinds.StoredObject) -> tuple[str, str]:
            assert isinstance(before, objects_pb2.Service), "checked by the edit"
            assert isinstance(after, objects_pb2.Service), "checked by the edit"
            return telling.of_scale(before, after)

        written = await self._objects.change(request.reference, edit, told, actor)
        assert isinstance(written.before, objects_pb2.Service), "checked by the edit"
        assert isinstance(written.after, objects_pb2.Service), "checked by the edit"
        return pb.ScaleResponse(service=written.after, before=written.before.spec.replicas)

    async def rebalance(self, request: pb.RebalanceRequest, actor: str = "") -> pb.RebalanceResponse:
        """What moves; each service that is to be spread again is marked, unless nothing is to be written."""
        situation = situation_of(self._cache.snapshot(), self._outlook, 1, self._now_ms(), patient=False)
        moves = []
        for move in rebalance.foresee(situation):
            moves.append(move)
            await asyncio.sleep(0)  # whoever leads has other work, too

        def edit(value: kinds.StoredObject) -> kinds.StoredObject:
            assert isinstance(value, objects_pb2.Service), "a service was asked for"
            return edits.ask_to_spread(value, now_ms=self._now_ms())

        for namespace, name in sorted({(one.service.meta.namespace, one.service.meta.name) for one in moves}):
            if not request.dry_run:
                reference = pb.ObjectReference(kind="service", namespace=namespace, name=name)
                with contextlib.suppress(
                    errors.Unknown
                ):  # it has gone meanwhile, and the others are still to be marked
                    await self._objects.change(reference, edit, telling.of_rebalance, actor)
        staying = itertools.starmap(telling.of_staying, rebalance.staying(situation))
        return pb.RebalanceResponse(moves=map(telling.of_move, moves), staying=staying)

    async def update_meta(self, request: pb.UpdateMetaRequest, actor: str = "") -> pb.UpdateMetaResponse:
        def edit(value: kinds.StoredObject) -> kinds.StoredObject:
            return edits.update_meta(
                value,
                labels=edits.Words(add=request.set_labels, remove=request.remove_labels),
                annotations=edits.Words(add=request.set_annotations, remove=request.remove_annotations),
                overwrite=request.overwrite,
                now_ms=self._now_ms(),
            )

        written = await self._objects.change(request.reference, edit, telling.of_meta, actor)
        return pb.UpdateMetaResponse(object=kinds.wrap(written.after), changed=written.after is not written.before)

    async def rollout(self, request: pb.RolloutRequest, actor: str = "") -> pb.RolloutResponse:
        said = ""

        def edit(value: kinds.StoredObject) -> kinds.StoredObject:
            nonlocal said
            if not isinstance(value, objects_pb2.Service):
                raise errors.Invalid(f"{kinds.label(value)} has no rollouts", hint="services have")
            known = self._cache.snapshot().revisions_of(value.meta.namespace, value.meta.name).values()
            wish = rollout_edits.Wish(known=known, revision=request.revision, asked_by=actor, now_ms=self._now_ms())
            changed, said = rollout_edits.change(value, request.action, wish)
            return changed

        def told(_before: kinds.StoredObject, _after: kinds.StoredObject) -> tuple[str, str]:
            return telling.of_rollout(request.action, said)

        after = (await self._objects.change(request.reference, edit, told, actor)).after
        assert isinstance(after, objects_pb2.Service), "checked by the edit"
        return pb.RolloutResponse(service=after, message=said)

    async def update_node(self, request: pb.UpdateNodeRequest, actor: str = "") -> pb.UpdateNodeResponse:
        def edit(value: kinds.StoredObject) -> kinds.StoredObject:
            assert isinstance(value, objects_pb2.Node), "a node was asked for"
            return edits.update_node(
                value,
                availability=request.availability,
                set_labels=request.set_labels,
                remove_labels=request.remove_labels,
                set_taints=request.set_taints,
                remove_taints=request.remove_taints,
                deadline_ms=request.deadline_ms if request.HasField("deadline_ms") else None,
                lost=request.lost,
                now_ms=self._now_ms(),
            )

        def told(before: kinds.StoredObject, after: kinds.StoredObject) -> tuple[str, str]:
            assert isinstance(before, objects_pb2.Node), "a node was asked for"
            assert isinstance(after, objects_pb2.Node), "checked by the edit"
            return telling.of_node(before, after)

        written = await self._objects.change(pb.ObjectReference(kind="node", name=request.node), edit, told, actor)
        assert isinstance(written.after, objects_pb2.Node), "checked by the edit"
        return pb.UpdateNodeResponse(node=written.after)

    async def delete(self, request: pb.DeleteRequest, actor: str = "") -> kinds.StoredObject:
        """The object as it was when its end was asked for."""
        if lookup.kind(request.reference.kind).derived:
            raise errors.Invalid(
                f"{request.reference.kind} are worked out, and cannot be deleted", hint="delete the service"
            )

        def edit(value: kinds.StoredObject) -> kinds.StoredObject | None:
            if isinstance(value, objects_pb2.Service):
                return edits.mark_deleted(value, now_ms=self._now_ms())
            edits.check_removable(value, self._cache.snapshot().all(objects_pb2.Service).values())
            return None

        return (await self._objects.change(request.reference, edit, telling.of_delete, actor)).after

    async def put_images(self, images: Sequence[objects_pb2.Image]) -> tuple[objects_pb2.Image, ...]:
        """Stores images under their names, over what had the names before."""
        for _ in range(changing.ATTEMPTS):
            existing = await self._objects.read([kinds.key(image) for image in images])
            stamped = [self._stamped(image, existing.get(kinds.key(image))) for image in images]
            new = [image for image in stamped if image != existing.get(kinds.key(image))]
            if not new:
                return tuple(stamped)
            with contextlib.suppress(store_errors.Conflict):
                revision = await self._objects.commit([typed.put(image) for image in new])
                for image in new:
                    image.meta.version = revision
                return tuple(stamped)
        raise changing.busy("the images")

    def _stamped(self, image: objects_pb2.Image, before: kinds.StoredObject | None) -> objects_pb2.Image:
        """The image with what the system says of it; as `before` when it is the same image."""
        meta = objects_pb2.Meta(name=image.meta.name, created_at=self._now_ms())
        if isinstance(before, objects_pb2.Image):
            if before.status == image.status:
                return before
            meta.CopyFrom(before.meta)
        else:
            meta.id = self._new_id()
        meta.generation += 1
        meta.updated_at = self._now_ms()
        return objects_pb2.Image(meta=meta, status=image.status)


def _unwrap(envelope: objects_pb2.Object) -> kinds.StoredObject:
    try:
        return kinds.unwrap(envelope)
    except ValueError as error:
        hint = "is the client newer than the control plane?"
        raise errors.Invalid("the apply has an object of no kind that is known here", hint=hint) from error
