"""A store that counts how long each answer takes, and what it was."""

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from controlplane import metrics
from controlplane.store import api, errors

_OUTCOMES: tuple[tuple[type[Exception], str], ...] = (
    (errors.Conflict, "conflict"),
    (errors.Deposed, "deposed"),
    (errors.Temporary, "unavailable"),
    (errors.StoreError, "refused"),
)


class Measured:
    """The `Store` protocol over another one. A watch has no answer; it is passed on."""

    def __init__(self, store: api.Store) -> None:
        self._store = store

    async def list(self, prefix: str) -> api.Listing:
        with _measured("list"):
            return await self._store.list(prefix)

    def watch(self, prefix: str, after: int) -> AsyncGenerator[api.EventBatch, None]:
        return self._store.watch(prefix, after)

    async def commit(self, changes: Sequence[api.Change], *, fence: api.Fence | None = None) -> int:
        with _measured("commit"):
            return await self._store.commit(changes, fence=fence)

    async def grant_lease(self, ttl_s: float) -> int:
        with _measured("grant_lease"):
            return await self._store.grant_lease(ttl_s)

    async def keep_alive(self, lease: int) -> float:
        with _measured("keep_alive"):
            return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        with _measured("revoke"):
            await self._store.revoke(lease)

    async def compact(self, revision: int) -> None:
        with _measured("compact"):
            await self._store.compact(revision)

    async def close(self) -> None:
        await self._store.close()


@contextlib.contextmanager
def _measured(operation: str) -> Iterator[None]:
    began, outcome = time.perf_counter(), "ok"
    try:
        yield
    except BaseException as error:
        outcome = next((word for kind, word in _OUTCOMES if isinstance(error, kind)), "cancelled")
        raise
    finally:
        metrics.STORE_SECONDS.labels(operation, outcome).observe(time.perf_counter() - began)
