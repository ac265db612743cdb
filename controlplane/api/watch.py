"""Watch: the objects that are there, then `synced`, then every change.

Two rules. The stream is gapless: what the reader has been told is remembered, and after the cache lost its place
(`resync`) the difference to the newest state is told as changes. And while a reader is slow, changes are merged, so it
costs no more than what it watches; one that does not read at all is hung up on (`bounds`).
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator

from controlplane.core import lookup
from controlplane.core import request_errors as errors
from controlplane.store import cache, feed, snapshots
from protos import kinds
from protos.orch.v1 import control_pb2 as pb

MAX_SELECTIONS = 32

Send = Callable[[pb.WatchResponse], Awaitable[object]]


async def watch(known: cache.Cache, request: pb.WatchRequest, send: Send) -> None:
    """Runs until cancelled. Raises Invalid for selections that make no sense."""
    selections = [lookup.Selection(selection) for selection in request.selections]
    if not 1 <= len(selections) <= MAX_SELECTIONS:
        raise errors.Invalid(f"a watch takes 1 to {MAX_SELECTIONS} selections, not {len(selections)}")
    for selection in selections:
        if selection.kind.derived:
            text = f"{selection.kind.name} cannot be watched: they are worked out when somebody asks"
            raise errors.Invalid(text, hint="watch tasks, which they follow")
    told = _Told(selections)
    synced = False
    with known.subscribe({selection.kind.name for selection in selections}) as subscription:
        while True:
            taken = await subscription.take()
            # Between `take` and `snapshot` nothing else runs, so that what is pending afterwards is newer than both.
            state = known.snapshot()
            for event in told.events(state, taken):
                await send(event)
            if not synced:
                await send(pb.WatchResponse(synced=state.revision))
                synced = True


class _Told:
    """What the reader believes to be there, by key."""

    def __init__(self, selections: Iterable[lookup.Selection]) -> None:
        self._selections = tuple(selections)
        self._objects: dict[str, kinds.StoredObject] = {}

    def events(self, state: snapshots.Snapshot, taken: feed.Changes) -> Iterator[pb.WatchResponse]:
        """What makes the reader's belief true, in order."""
        if taken.resync:
            yield from self._catch_up(state)
            return
        for change in taken.changes:
            selected = change.after is not None and self._selects(state, change.after)
            yield from self._tell(change.key, change.after if selected else None)

    def _catch_up(self, state: snapshots.Snapshot) -> Iterator[pb.WatchResponse]:
        present = {kinds.key(value): value for selection in self._selections for value in selection.take(state)}
        for key in [key for key in self._objects if key not in present]:
            yield from self._tell(key, None)
        for key, value in present.items():
            yield from self._tell(key, value)

    def _tell(self, key: str, value: kinds.StoredObject | None) -> Iterator[pb.WatchResponse]:
        before = self._objects.get(key)
        if value is not None and (before is None or before.meta.version != value.meta.version):
            self._objects[key] = value
            yield pb.WatchResponse(changed=kinds.wrap(value))
        elif value is None and before is not None:
            del self._objects[key]
            yield pb.WatchResponse(deleted=kinds.wrap(before))

    def _selects(self, state: snapshots.Snapshot, value: kinds.StoredObject) -> bool:
        return any(selection.takes(state, value) for selection in self._selections)
