"""Commits in etcd's words: pure functions from changes to a request, and from the answer to an error.

A transaction is `if all compares hold then writes else reads`. The reads ask for exactly what was compared, so a
refusal can name the keys that stood in the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aetcd import rpc

from controlplane.store import api, errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A key that is written along with the changes, over the version `before`, so that this can happen once only."""

    key: str
    before: int
    value: bytes


def build(changes: Sequence[api.Change], fence: api.Fence | None, receipt: Receipt | None = None) -> Any:
    """The request: compares and reads of the guarded changes, the fence and the receipt, in that order; as many writes
    as changes, and the receipt's.
    """
    guarded = [change for change in changes if change.expect is not None]
    compares = [_expects(change) for change in guarded]
    reads = [change.key.encode() for change in guarded]
    if fence is not None:
        compares.append(_stands(fence))
        reads.append(fence.key.encode())
    request = rpc.TxnRequest(
        compare=compares,
        success=[_write(change) for change in changes],
        failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key, keys_only=True)) for key in reads],
    )
    if receipt is not None:
        put = api.Put(key=receipt.key, value=receipt.value, expect=receipt.before)
        request.compare.append(_expects(put))
        request.success.append(_write(put))
        request.failure.append(rpc.RequestOp(request_range=rpc.RangeRequest(key=receipt.key.encode())))
    return request


def receipt_in(response: Any) -> Any:
    """What a refused transaction has found in the place of its receipt: etcd's KeyValue, at revision 0 when nothing."""
    found = response.responses[-1].response_range.kvs
    return found[0] if found else rpc.KeyValue()


def refusal(response: Any, changes: Sequence[api.Change], fence: api.Fence | None) -> errors.StoreError:
    """Why the compares of the changes and the fence did not hold, from the reads that came back in their order."""
    guarded = [change for change in changes if change.expect is not None]
    found = [answer.response_range.kvs for answer in response.responses][: len(guarded) + (fence is not None)]
    if fence is not None:
        leader = found.pop()
        if not leader or leader[0].create_revision != fence.version:
            return errors.Deposed(fence.key, fence.version)
    versions = ((change, kvs[0].mod_revision if kvs else 0) for change, kvs in zip(guarded, found, strict=True))
    return errors.Conflict([change.key for change, version in versions if version != change.expect])


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
