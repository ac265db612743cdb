"""What a response of etcd's watch adds to what was seen."""

from aetcd import rpc

from controlplane.store import api, watching


def response(header: int, *versions: int, removed: bool = False) -> rpc.WatchResponse:
    kind = rpc.Event.DELETE if removed else rpc.Event.PUT
    events = [
        rpc.Event(type=kind, kv=rpc.KeyValue(key=b"/a", value=b"v", mod_revision=version)) for version in versions
    ]
    return rpc.WatchResponse(header=rpc.ResponseHeader(revision=header), events=events)


def test_while_it_catches_up_the_header_is_ahead_and_does_not_count() -> None:
    batch = watching.decode(response(50, 7, 7, 9), 6)
    assert batch
    assert batch.revision == 9
    assert [event.version for event in batch.events] == [7, 7, 9]


def test_what_was_seen_already_is_dropped() -> None:
    assert watching.decode(response(50, 5, 6), 6) is None
    batch = watching.decode(response(50, 6, 7), 6)
    assert batch == api.EventBatch(events=(api.Event(key="/a", value=b"v", version=7),), revision=7)


def test_a_response_without_events_is_progress_and_never_goes_back() -> None:
    assert watching.decode(response(50), 6) == api.EventBatch(events=(), revision=50)
    assert watching.decode(response(5), 6) == api.EventBatch(events=(), revision=6)


def test_a_removal_has_no_value() -> None:
    batch = watching.decode(response(7, 7, removed=True), 6)
    assert batch
    assert batch.events[0].value is None
