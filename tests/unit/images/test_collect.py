"""Which images make room: never those that are kept, the least recently used first, and no more than is needed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import collect
from images.collect import Disk, Marks, Stored

GB = 10**9


def stored(digest: str, used_at_s: float, *, kept: bool = False, **parts: int) -> Stored:
    return Stored(digest=digest, names=(f"{digest}:1",), used_at_s=used_at_s, parts=parts, is_kept=kept)


@pytest.mark.parametrize(
    ("free", "excess"),
    [(10 * GB, 15 * GB), (15 * GB, 10 * GB), (16 * GB, 0), (100 * GB, 0), (0, 25 * GB)],
)
def test_room_is_made_from_the_high_mark_down_to_the_low_one(free: int, excess: int) -> None:
    assert collect.excess_bytes(Disk(total_bytes=100 * GB, free_bytes=free), Marks()) == excess


@pytest.mark.parametrize(("high", "low"), [(50, 50), (50, 60), (101, 10), (50, 0)])
def test_marks_that_would_never_rest_are_refused(high: int, low: int) -> None:
    with pytest.raises(AssertionError, match="0 < low < high"):
        Marks(high_percent=high, low_percent=low)


def test_the_least_recently_used_go_until_there_is_room() -> None:
    images = [stored("new", 30, a=10), stored("old", 10, b=10), stored("older", 5, c=10)]
    choose = collect.least_recently_used(15, spare_since_s=100)
    assert choose(images) == ("older", "old")


def test_what_runs_and_what_has_just_come_stay() -> None:
    images = [stored("runs", 1, kept=True, a=10), stored("fresh", 90, b=10), stored("idle", 50, c=10)]
    assert collect.least_recently_used(1000, spare_since_s=90)(images) == ("idle",)
    assert collect.everything(images) == ("fresh", "idle")
    assert collect.unused_since(60)(images) == ("idle",)
    assert collect.nothing(images) == ()


def test_an_image_that_shares_all_frees_nothing_and_lets_the_next_free_all() -> None:
    images = [stored("tag", 1, base=100), stored("twin", 2, base=100), stored("other", 3, x=5)]
    assert collect.least_recently_used(50, spare_since_s=10)(images) == ("tag", "twin")
    assert collect.freed_bytes(images, {"tag"}) == 0
    assert collect.freed_bytes(images, {"tag", "twin"}) == 100


def test_a_layer_that_a_running_image_needs_frees_nothing() -> None:
    images = [stored("runs", 9, kept=True, base=100, top=1), stored("idle", 1, base=100, own=7)]
    assert collect.freed_bytes(images, {"idle"}) == 7
    assert collect.unique_bytes(images) == {"runs": 1, "idle": 7}


_IMAGES = st.lists(
    st.builds(
        lambda used, kept, parts: (used, kept, parts),
        st.integers(0, 100),
        st.booleans(),
        st.frozensets(st.sampled_from("abcdefgh"), max_size=5),
    ),
    max_size=8,
).map(
    lambda rows: [
        stored(f"i{number}", used, kept=kept, **{part: 1 << "abcdefgh".index(part) for part in parts})
        for number, (used, kept, parts) in enumerate(rows)
    ]
)


def on_disk(images: Sequence[Stored]) -> int:
    return sum({part: size for image in images for part, size in image.parts.items()}.values())


@given(images=_IMAGES, wanted=st.integers(0, 300), spare=st.integers(0, 100))
def test_a_choice_makes_room_or_takes_all_that_may_go_and_never_more_than_needed(
    images: list[Stored], wanted: int, spare: int
) -> None:
    chosen = set(collect.least_recently_used(wanted, spare_since_s=spare)(images))
    may_go = {image.digest for image in images if not image.is_kept and image.used_at_s < spare}
    assert chosen <= may_go
    freed = collect.freed_bytes(images, chosen)
    assert freed == on_disk(images) - on_disk([image for image in images if image.digest not in chosen])
    assert freed >= wanted or chosen == may_go
    if chosen:
        last = max((image for image in images if image.digest in chosen), key=lambda one: (one.used_at_s, one.digest))
        assert collect.freed_bytes(images, chosen - {last.digest}) < wanted


@given(images=_IMAGES)
def test_what_is_unique_and_what_is_shared_is_all_there_is(images: list[Stored]) -> None:
    unique = collect.unique_bytes(images)
    for image in images:
        others = [other for other in images if other is not image]
        assert unique[image.digest] == on_disk(images) - on_disk(others)
        assert 0 <= unique[image.digest] <= image.size_bytes
