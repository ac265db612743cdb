"""Commits in etcd's words."""

from aetcd import rpc

from controlplane.store import api, errors, txn

PUT = api.Put(key="/put", value=b"v", expect=3, lease=9)
CREATE = api.Put(key="/create", value=b"v", expect=0)
FREE = api.Put(key="/free", value=b"v")
DELETE = api.Delete(key="/delete", expect=4)
FENCE = api.Fence(key="/leader", version=2)


def refused(*found: rpc.KeyValue | None) -> rpc.TxnResponse:
    """The reads of a refused transaction: a key's revisions, or None where there is no such key."""
    ranges = [rpc.RangeResponse(kvs=[kv] if kv else []) for kv in found]
    return rpc.TxnResponse(responses=[rpc.ResponseOp(response_range=each) for each in ranges])


def test_guarded_changes_and_the_fence_are_compared_and_read_everything_is_written() -> None:
    request = txn.build([PUT, CREATE, FREE, DELETE], FENCE)
    assert [(each.key, each.mod_revision or each.create_revision) for each in request.compare] == [
        (b"/put", 3),
        (b"/create", 0),
        (b"/delete", 4),
        (b"/leader", 2),
    ]
    assert [each.request_range.key for each in request.failure] == [each.key for each in request.compare]
    writes = [each.request_put.key or each.request_delete_range.key for each in request.success]
    assert writes == [b"/put", b"/create", b"/free", b"/delete"]
    assert request.success[0].request_put.lease == 9


def test_a_receipt_is_compared_written_and_read_last_and_with_its_value() -> None:
    receipt = txn.Receipt(key="/receipt", before=6, value=b"r")
    request = txn.build([PUT, FREE], FENCE, receipt)
    assert (request.compare[-1].key, request.compare[-1].mod_revision) == (b"/receipt", 6)
    assert (request.success[-1].request_put.key, request.success[-1].request_put.value) == (b"/receipt", b"r")
    assert (request.failure[-1].request_range.key, request.failure[-1].request_range.keys_only) == (b"/receipt", False)
    assert [len(request.compare), len(request.success), len(request.failure)] == [3, 3, 3]


def test_the_receipt_that_is_there_is_found_behind_everything_else() -> None:
    held, leader = rpc.KeyValue(mod_revision=3), rpc.KeyValue(create_revision=2, mod_revision=2)
    there = rpc.KeyValue(key=b"/receipt", mod_revision=7, value=b"r")
    assert txn.receipt_in(refused(held, leader, there)) == there
    assert txn.receipt_in(refused(held, leader, None)).mod_revision == 0
    error = txn.refusal(refused(None, leader, there), [PUT], FENCE)
    assert isinstance(error, errors.Conflict)
    assert error.keys == ("/put",)


def test_a_conflict_names_the_keys_that_stood_in_the_way() -> None:
    held = rpc.KeyValue(mod_revision=3)
    newer = rpc.KeyValue(mod_revision=8)
    leader = rpc.KeyValue(create_revision=2, mod_revision=2)
    error = txn.refusal(refused(held, newer, None, leader), [PUT, CREATE, FREE, DELETE], FENCE)
    assert isinstance(error, errors.Conflict)
    assert error.keys == ("/create", "/delete")


def test_who_no_longer_leads_hears_that_first() -> None:
    for leader in (None, rpc.KeyValue(create_revision=5, mod_revision=5)):
        error = txn.refusal(refused(None, leader), [PUT], FENCE)
        assert isinstance(error, errors.Deposed)
