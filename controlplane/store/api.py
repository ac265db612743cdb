"""The store as the rest of the control plane sees it: types and a protocol, no I/O.

Two rules. A revision belongs to the whole store and rises by one with every commit that changes something; an entry's
`version` is the revision that wrote it last. And a commit happens completely or not at all.

Both implementations (`etcd`, `memory`) pass the suite in `tests/contract/store`.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.store import errors

MAX_OPERATIONS = 127
"""Operations of one commit: etcd's default `--max-txn-ops`, less the receipt (`committing`). A fence is one more
comparison and counts as one."""

MAX_COMMIT_BYTES = 1_400_000
"""Keys and values of one commit; etcd's default `--max-request-bytes` is 1.5 MiB with everything around them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key with its value; `version` is the revision that wrote it last."""

    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All entries below a prefix as they were at `revision`, in the order of their keys."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write a value. `expect`: the version that must be there now; 0 = no such key; None = whatever is there."""

    key: str
    value: bytes
    expect: int | None = None
    lease: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove a key; a missing one is no error unless `expect` asks for a version."""

    key: str
    expect: int | None = None


Change = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A key was written (`value`) or removed (None) by the commit that made revision `version`."""

    key: str
    value: bytes | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """Whole revisions in order; everything below the prefix up to `revision` has now been seen.

    A batch without events reports progress or the state of the link. `connected` False: the link to the store is lost
    and what was seen may be stale; the next batch with True says that it is back and nothing was missed.
    """

    events: tuple[Event, ...]
    revision: int
    connected: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The leader's key and the revision that created it: a commit happens only while exactly that key stands."""

    key: str
    version: int


class Store(Protocol):
    """What a key-value store has to promise. Every call raises `Unavailable` when no endpoint answers in time."""

    async def list(self, prefix: str) -> Listing:
        """All entries below `prefix`, read at one revision, however many there are."""
        ...

    def watch(self, prefix: str, after: int) -> AsyncGenerator[EventBatch, None]:
        """Every change below `prefix` after revision `after`, without gap or repetition, across lost connections.

        The first batch is empty and says that the watch stands. Raises `Compacted` when the history is gone.
        Close the generator (`contextlib.aclosing`) to end the watch.
        """
        ...

    async def commit(self, changes: Sequence[Change], *, fence: Fence | None = None) -> int:
        """Write all of `changes` or none, and once; returns the revision after it.

        Raises `Conflict` (an expected version does not hold), `Deposed` (the fence does not stand), `LeaseExpired`,
        and `Fatal` for more than `MAX_OPERATIONS` or `MAX_COMMIT_BYTES`, or for one key named twice.
        """
        ...

    async def grant_lease(self, ttl_s: float) -> int:
        """A new lease. Its keys go when it is not kept alive for `ttl_s` (rounded up to whole seconds, at least 1)."""
        ...

    async def keep_alive(self, lease: int) -> float:
        """Start the lease's time to live anew; returns it in seconds. Raises `LeaseExpired`."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease and remove its keys, in one revision; an expired lease is no error."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget what led to `revision`; a watch may start after it. Repeating is no error, the future is `Fatal`."""
        ...

    async def close(self) -> None:
        """Release connections; watches that still run end with `Fatal`."""
        ...


def check_commit(changes: Sequence[Change], fence: Fence | None) -> None:
    """Refuse what no store could take; both implementations say it in the same words."""
    operations = len(changes) + (fence is not None)
    if operations > MAX_OPERATIONS:
        raise errors.Fatal(
            f"a commit of {len(changes)} changes{' and a fence' if fence else ''} exceeds {MAX_OPERATIONS} operations; "
            "split it (controlplane.store.writer does)"
        )
    size_bytes = sum(map(size_of, changes))
    if size_bytes > MAX_COMMIT_BYTES:
        raise errors.Fatal(
            f"a commit of {size_bytes} bytes (first key {changes[0].key}) exceeds {MAX_COMMIT_BYTES} bytes; split it"
        )
    seen: set[str] = set()
    for change in changes:
        if change.key in seen:
            raise errors.Fatal(f"a commit names the key {change.key} twice; merge the two changes")
        seen.add(change.key)


def size_of(change: Change) -> int:
    """What a change counts towards `MAX_COMMIT_BYTES`."""
    return len(change.key) + (len(change.value) if isinstance(change, Put) else 0)


def prefix_end(prefix: str) -> bytes:
    r"""The first key behind all keys that start with `prefix`: "/a/" → "/a0". All keys: "\0", as etcd has it.

    Adding one to the last byte is right in UTF-8 too: 0xff never occurs in it.
    """
    if not prefix:
        return b"\0"
    end = prefix.encode()
    return end[:-1] + bytes([end[-1] + 1])
