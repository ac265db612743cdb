"""Commits in etcd's words: pure functions from changes to a request, and from the answer to an error.

A transaction is `if all compares hold then writes else reads`. The reads ask for exactly what was compared, so a
refusal can name the keys that stood in the way.
"""

from collections.abc import Sequence
from typing import Any

from aetcd import rpc

from controlplane.store import api, errors


def build(changes: Sequence[api.Change], fence: api.Fence | None) -> Any:
    """The request: as many compares and reads as guarded changes (and the fence), as many writes as changes."""
    guarded = [change for change in changes if change.expect is not None]
    compares = [_expects(change) for change in guarded]
    reads = [change.key.encode() for change in guarded]
    if fence is not None:
        compares.append(_stands(fence))
        reads.append(fence.key.encode())
    return rpc.TxnRequest(
        compare=compares,
        success=[_write(change) for change in changes],
        failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key, keys_only=True)) for key in reads],
    )


def is_repeatable(changes: Sequence[api.Change]) -> bool:
    """Whether sending it twice writes at most once: every change names the version that it replaces."""
    return all(change.expect is not None for change in changes)


def refusal(
    response: Any, changes: Sequence[api.Change], fence: api.Fence | None, *, maybe_own: bool
) -> errors.StoreError:
    """Why the compares did not hold, from the reads that came back in their order."""
    found = [answer.response_range.kvs for answer in response.responses]
    if fence is not None:
        leader = found.pop()
        if not leader or leader[0].create_revision != fence.version:
            return errors.Deposed(fence.key, fence.version)
    guarded = (change for change in changes if change.expect is not None)
    versions = ((change, kvs[0].mod_revision if kvs else 0) for change, kvs in zip(guarded, found, strict=True))
    return errors.Conflict(
        [change.key for change, version in versions if version != change.expect], maybe_own=maybe_own
    )


def _expects(change: api.Change) -> Any:
    """A key that does not exist compares as mod revision 0."""
    return rpc.Compare(
        target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, key=change.key.encode(), mod_revision=change.expect
    )


def _stands(fence: api.Fence) -> Any:
    return rpc.Compare(
        target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, key=fence.key.encode(), create_revision=fence.version
    )


def _write(change: api.Change) -> Any:
    key = change.key.encode()
    if isinstance(change, api.Delete):
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=change.value, lease=change.lease or 0))
