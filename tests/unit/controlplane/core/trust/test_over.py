"""Tokens that are over are kept for a while, so that whoever comes late is told what has become of theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import plan
from controlplane.core import request_errors as errors
from controlplane.core.trust import admission, over
from protos.orch.v1 import trust_pb2 as pb
from tests.unit.controlplane.core.trust.test_admission import ASK, NOW_MS, trust

LONG_AGO_MS = NOW_MS - over.KEPT_MS


def token(name: str, **fields: object) -> pb.TokenRecord:
    return pb.TokenRecord(**{"id": name, "unlimited": True, **fields})  # type: ignore[arg-type]


def cluster(*tokens: pb.TokenRecord) -> pb.TrustRecord:
    return pb.TrustRecord(cluster="c", tokens=tokens)


def names(record: pb.TrustRecord) -> list[str]:
    return [one.id for one in record.tokens]


@pytest.mark.parametrize(
    ("kept", "forgotten", "wake_at"),
    [
        (token("good"), False, None),
        (token("good for a while", expires_at=NOW_MS + 5), False, NOW_MS + 5 + over.KEPT_MS),
        (token("expired", expires_at=NOW_MS), False, NOW_MS + over.KEPT_MS),
        (token("almost", expires_at=LONG_AGO_MS + 1), False, NOW_MS + 1),
        (token("long expired", expires_at=LONG_AGO_MS), True, None),
        (token("has a use", unlimited=False, uses_left=1), False, None),
        (token("used up", unlimited=False, used_up_at=NOW_MS - 5), False, NOW_MS - 5 + over.KEPT_MS),
        (token("long used up", unlimited=False, used_up_at=LONG_AGO_MS, expires_at=NOW_MS + 5), True, None),
        (token("expired after", unlimited=False, used_up_at=NOW_MS, expires_at=LONG_AGO_MS), True, None),
    ],
    ids=lambda one: one.id if isinstance(one, pb.TokenRecord) else "",
)
def test_a_token_is_forgotten_a_week_after_its_end(kept: pb.TokenRecord, forgotten: bool, wake_at: int | None) -> None:
    """Whichever end comes first counts; one without an end stays."""
    step = over.forget(cluster(kept), NOW_MS)
    assert (step.forgotten, step.wake_at) == ((kept.id,) if forgotten else (), wake_at)
    assert (step.next is not None) == forgotten, "nothing is written for nothing"
    assert step.next is None or not step.next.tokens


def test_one_that_nobody_knows_since_when_it_is_used_up_is_so_from_now_on() -> None:
    """A control plane of an older release let in the last one. It is noted once."""
    step = over.forget(cluster(token("old", unlimited=False)), NOW_MS)
    assert step.next is not None
    assert step.next.tokens[0].used_up_at == NOW_MS
    assert over.forget(step.next, NOW_MS + 1) == over.Step(wake_at=NOW_MS + over.KEPT_MS)
    assert over.forget(step.next, NOW_MS + over.KEPT_MS).forgotten == ("old",)


def test_whoever_comes_late_is_told_what_has_become_of_their_token() -> None:
    """And after a week that there is none."""
    for fields, why in (({"expires_at": NOW_MS - 1}, "t1 has expired"), ({"unlimited": False}, "t1 is used up")):
        kept = over.forget(trust(**fields), NOW_MS).next or trust(**fields)
        for after_ms, told in ((over.KEPT_MS - 2, why), (over.KEPT_MS, "or was never made here")):
            now_ms = NOW_MS + after_ms
            with pytest.raises(errors.Forbidden, match=told):
                admission.admit(over.forget(kept, now_ms).next or kept, ASK, now_ms)


def test_the_last_use_says_when_it_was() -> None:
    """The one before it does not."""
    made = admission.admit(trust(unlimited=False, uses_left=2), ASK, NOW_MS).trust
    assert (made.tokens[0].uses_left, made.tokens[0].used_up_at) == (1, 0)
    made = admission.admit(made, ASK, NOW_MS + 1).trust
    assert (made.tokens[0].uses_left, made.tokens[0].used_up_at) == (0, NOW_MS + 1)


def test_a_new_token_takes_the_place_of_the_one_that_was_over_first() -> None:
    """And of none that is good, or that there is room beside."""
    tokens = [token("good"), token("late", expires_at=NOW_MS), token("early", expires_at=NOW_MS - 5)]
    for most, left in ((4, ["good", "late", "early"]), (3, ["good", "late"]), (2, ["good"]), (1, ["good"])):
        record = cluster(*tokens)
        over.make_room(record, most, NOW_MS)
        assert names(record) == left


MOMENTS = st.sampled_from(
    [0, 1, LONG_AGO_MS - 1, LONG_AGO_MS, LONG_AGO_MS + 1, NOW_MS - 1, NOW_MS, NOW_MS + 1, 1 << 62]
)
TOKENS = st.lists(
    st.builds(token, st.uuids().map(str), unlimited=st.booleans(), uses_left=st.integers(0, 2), expires_at=MOMENTS),
    max_size=8,
    unique_by=lambda one: one.id,
)


@given(tokens=TOKENS, most=st.integers(1, 9))
def test_no_token_that_still_opens_the_door_is_ever_taken(tokens: list[pb.TokenRecord], most: int) -> None:
    """However many there are; and a second look finds nothing to do."""
    record = cluster(*tokens)
    lasting = [one for one in tokens if not one.expires_at or one.expires_at > NOW_MS]
    good = [one.id for one in lasting if one.unlimited or one.uses_left]
    step = over.forget(record, NOW_MS)
    after = step.next or record
    assert set(good) <= set(names(after))
    assert over.forget(after, NOW_MS).next is None
    assert step.wake_at is None or step.wake_at > NOW_MS
    roomy = plan.copy(record)
    over.make_room(roomy, most, NOW_MS)
    assert set(good) <= set(names(roomy))
    assert len(roomy.tokens) < most or names(roomy) == good
