"""The store on etcd (≥ 3.4.20): etcd's own protocol under an adapter that knows several endpoints.

Every call has a deadline; what no endpoint answers raises `Unavailable` with the reason of each.

A write may be sent several times (`tries` tells when). A commit happens once all the same (`committing`); other writes
do no harm when they happen twice.
"""

import math
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from controlplane.store import api, committing, condition, endpoints, errors, etcd_members, watching

PAGE_ENTRIES = 1000
LISTING_TRIES = 5
KEEP_ALIVE_TIMEOUT_S = 1.0
"""For one endpoint: shorter than other calls, because a lease does not wait."""


class EtcdStore:
    """The `Store` protocol over the members at `addresses` (host:port), with TLS when `credentials` are given. `home`:
    which of them is on this machine. `writer`: the name under which it writes, as of a `Committer`.

    Make it inside the event loop that uses it.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None = None,
        home: str = "",
        writer: str = "",
    ) -> None:
        self._members = endpoints.Endpoints(addresses, credentials, home)
        self._committer = committing.Committer(self._members, writer or secrets.token_hex(8))

    async def move(self, addresses: Sequence[str]) -> None:
        """Goes on with other members."""
        await self._members.move(addresses)

    async def renew(self, credentials: grpc.ChannelCredentials) -> None:
        """Is known by other credentials from now on. Watches stay where they are while they can."""
        await self._members.renew(credentials)

    async def list(self, prefix: str) -> api.Listing:
        for _ in range(LISTING_TRIES):
            try:
                return await self._list_pages(prefix)
            except endpoints.Refused as error:
                if error.code is not grpc.StatusCode.OUT_OF_RANGE:
                    raise
        raise errors.Unavailable(f"listing {prefix} was overtaken by a compaction {LISTING_TRIES} times")

    def watch(self, prefix: str, after: int) -> AsyncGenerator[api.EventBatch, None]:
        return watching.watch(self._members, prefix, after)

    async def commit(self, changes: Sequence[api.Change], *, fence: api.Fence | None = None) -> int:
        api.check_commit(changes, fence)
        return await self._committer.commit(changes, fence)

    async def grant_lease(self, ttl_s: float) -> int:
        request = rpc.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s)))  # repeated, it leaves one that lapses by itself
        response, _ = await self._members.write(
            "grant a lease", lambda link, timeout_s: link.lease.LeaseGrant(request, timeout=timeout_s)
        )
        return int(response.ID)

    async def keep_alive(self, lease: int) -> float:
        response = await self._members.call(
            f"keep lease {lease:x} alive",
            lambda link, timeout_s: _keep_alive(link, lease, min(timeout_s, KEEP_ALIVE_TIMEOUT_S)),
        )
        if response.TTL <= 0:
            raise errors.LeaseExpired(lease)
        return float(response.TTL)

    async def revoke(self, lease: int) -> None:
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            await self._members.write(
                f"revoke lease {lease:x}", lambda link, timeout_s: link.lease.LeaseRevoke(request, timeout=timeout_s)
            )
        except endpoints.Refused as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def compact(self, revision: int) -> None:
        request = rpc.CompactionRequest(revision=revision)
        try:
            await self._members.write(
                f"compact at {revision}", lambda link, timeout_s: link.kv.Compact(request, timeout=timeout_s)
            )
        except endpoints.Refused as error:
            if "has been compacted" not in error.details:
                raise

    async def condition(self) -> Sequence[condition.Member]:
        """How every member is, as it says itself; one that does not answer is among them, too."""
        return await condition.of(self._members)

    @property
    def members(self) -> etcd_members.Members:
        """The members of this very store, to be looked at and changed."""
        return etcd_members.Members(self._members)

    async def close(self) -> None:
        await self._members.close()

    async def _list_pages(self, prefix: str) -> api.Listing:
        """Page by page at the revision of the first one; a compaction in between ends it with OUT_OF_RANGE."""
        entries: list[api.Entry] = []
        start, revision, more = prefix.encode() or b"\0", 0, True
        while more:
            request = rpc.RangeRequest(
                key=start, range_end=api.prefix_end(prefix), limit=PAGE_ENTRIES, revision=revision
            )
            page = await self._members.range(f"list {prefix}", request)
            revision = revision or page.header.revision
            entries.extend(_entry(kv) for kv in page.kvs)
            more = page.more
            start = page.kvs[-1].key + b"\0" if more else b""
        return api.Listing(entries=tuple(entries), revision=revision)


def _entry(kv: Any) -> api.Entry:
    return api.Entry(key=kv.key.decode(), value=kv.value, version=kv.mod_revision)


async def _keep_alive(link: endpoints.Link, lease: int, timeout_s: float) -> Any:
    """One request and one answer on the stream that etcd wants for this."""
    call = link.lease.LeaseKeepAlive(timeout=timeout_s)
    try:
        await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
        response = await call.read()
        if response is endpoints.END_OF_STREAM:
            raise errors.Unavailable(f"etcd at {link.address} ended the stream that keeps lease {lease:x} alive")
        return response
    finally:
        call.cancel()
