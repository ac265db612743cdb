"""Objects in the store: read them as they are now, change one of them, and tell of it in the same transaction.

One rule: what was changed by somebody else in between is decided anew, a bounded number of times.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from controlplane.core import events, lookup
from controlplane.core import request_errors as errors
from controlplane.store import api, cache, typed
from controlplane.store import errors as store_errors
from protos import kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2

ATTEMPTS = 5
CAUGHT_UP_TIMEOUT_S = 2.0
CONCURRENT_READS = 16

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An object before and after a change; both are the same when there was nothing to write."""

    before: kinds.StoredObject
    after: kinds.StoredObject


AlongWithRemoval = Callable[[kinds.StoredObject], Sequence[api.Change]]
"""What else goes in the same commit as an object that is removed."""


def nothing_else(_removed: kinds.StoredObject) -> Sequence[api.Change]:
    """The object goes alone."""
    return ()


class Objects:
    """What the store has. `new_id` makes ids that are never used again."""

    def __init__(
        self,
        store: api.Store,
        known: cache.Cache,
        *,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
        along_with_removal: AlongWithRemoval = nothing_else,
    ) -> None:
        self._store = store
        self._cache = known
        self._now_ms = now_ms
        self._new_id = new_id
        self._along_with_removal = along_with_removal

    async def change(
        self,
        reference: pb.ObjectReference,
        edit: Callable[[kinds.StoredObject], kinds.StoredObject | None],
        told: Callable[[kinds.StoredObject, kinds.StoredObject], tuple[str, str]],
        actor: str,
    ) -> Written:
        """Stores what `edit` makes of the object; None removes it. `told` says it in a word and a sentence."""
        for _ in range(ATTEMPTS):
            before = await self.fresh(reference)
            after = edit(before)
            if after is before:
                return Written(before=before, after=before)
            with contextlib.suppress(store_errors.Conflict):
                event = self.told(before, *told(before, after or before), actor)
                if after is None:
                    await self.commit([typed.delete(before), *self._along_with_removal(before)], [event])
                    return Written(before=before, after=before)
                revision = await self.commit([typed.put(after)], [event])
                after.meta.version = revision
                return Written(before=before, after=after)
        raise busy(f"the {reference.kind} {reference.name}")

    async def fresh(self, reference: pb.ObjectReference) -> kinds.StoredObject:
        """The object that is named, as the store has it now. Raises Unknown."""
        known = lookup.find(self._cache.snapshot(), reference)
        found = await self.read([kinds.key(known)])
        if not found:
            raise errors.Unknown(f"{kinds.label(known)} was removed a moment ago")
        return found[kinds.key(known)]

    async def read(self, keys: Iterable[str]) -> dict[str, kinds.StoredObject]:
        """The objects at these keys, those that exist."""
        found: dict[str, kinds.StoredObject] = {}
        slots = asyncio.Semaphore(CONCURRENT_READS)

        async def read(key: str) -> None:
            async with slots:
                listing = await self._store.list(key)
            for entry in listing.entries:
                if entry.key == key and (value := typed.decode(key, entry.value, entry.version)) is not None:
                    found[key] = value

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(read(key))
        return found

    def told(self, value: kinds.StoredObject, reason: str, message: str, actor: str) -> objects_pb2.Event:
        """The event that tells what a person has done."""
        return events.of_person(value, reason, message, actor=actor, suffix=self._new_id(), now_ms=self._now_ms())

    async def commit(self, changes: Sequence[api.Change], told: Sequence[objects_pb2.Event] = ()) -> int:
        """Stores the changes, and what is told of them in the same transaction, as far as there is room."""
        together = [*changes, *_fitting(changes, list(map(typed.put, told)))]
        revision = await self._store.commit(together)
        # The change is stored; that this instance sees it late is no reason to call it a failure.
        with contextlib.suppress(store_errors.Unavailable):
            await self._cache.wait_for(revision, CAUGHT_UP_TIMEOUT_S)
        return revision


def _fitting(changes: Sequence[api.Change], told: Sequence[api.Change]) -> Sequence[api.Change]:
    """As many events as one transaction takes beside the changes. A large apply is not told of object by object."""
    fitting = told[: api.MAX_OPERATIONS - len(changes)]
    if sum(map(api.size_of, (*changes, *fitting))) > api.MAX_COMMIT_BYTES:
        fitting = ()
    if len(fitting) < len(told):
        _log.warning("not told as events: the change is too large", left_out=len(told) - len(fitting))
    return fitting


def busy(what: str) -> errors.Outdated:
    """The refusal, to be raised, of a change that somebody else came before again and again."""
    text = f"{what} changed {ATTEMPTS} times while this was decided, each time before it could be written"
    return errors.Outdated(text, hint="try again")
