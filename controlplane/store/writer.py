"""Many changes in as few commits as the store's limits allow.

What must happen together is one group and is never split; the order of groups is kept. Commits before a failed one
stay: whoever writes has to look again, as after any conflict.
"""

from collections.abc import Iterable, Iterator, Sequence

from controlplane.store import api


async def write(
    store: api.Store, groups: Iterable[Sequence[api.Change]], *, fence: api.Fence | None = None
) -> int | None:
    """Commit all groups, one commit after the other; the last revision, or None when there was nothing to write."""
    revision = None
    for changes in pack(groups, fenced=fence is not None):
        revision = await store.commit(changes, fence=fence)
    return revision


def pack(groups: Iterable[Sequence[api.Change]], *, fenced: bool) -> Iterator[list[api.Change]]:
    """Fill each commit with as many whole groups as fit: 300 single changes, fenced, make 126 + 126 + 48.

    A group that cannot fit alone is passed on as it is, for the store to refuse with its reason.
    """
    limit = api.MAX_OPERATIONS - fenced
    packed: list[api.Change] = []
    keys: set[str] = set()
    size_bytes = 0
    for group in groups:
        group_bytes = sum(map(api.size_of, group))
        full = len(packed) + len(group) > limit or size_bytes + group_bytes > api.MAX_COMMIT_BYTES
        if packed and (full or not keys.isdisjoint(change.key for change in group)):
            yield packed
            packed, keys, size_bytes = [], set(), 0
        packed.extend(group)
        keys.update(change.key for change in group)
        size_bytes += group_bytes
    if packed:
        yield packed
