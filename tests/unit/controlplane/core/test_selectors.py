"""Label selectors: what each form asks, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import request_errors as errors
from controlplane.core import selectors

WEB = {"app": "web", "zone": "a", "gpu": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=api", False),
        ("app!=api", True),
        ("app!=web", False),
        ("tier!=front", True),
        ("zone in (a, b)", True),
        ("zone in (b,c)", False),
        ("zone notin (b)", True),
        ("zone notin (a ,b)", False),
        ("tier notin (front)", True),
        ("tier in (front)", False),
        ("gpu", True),
        ("!gpu", False),
        ("! old", True),
        ("gpu=", True),
        ("app=web,zone in (a,b),gpu,!old", True),
        ("app=web, zone in (b), gpu", False),
        ("example.org/team=x", False),
    ],
)
def test_each_form_asks_what_it_says(*, text: str, fits: bool) -> None:
    assert selectors.parse(text)(WEB) is fits


@pytest.mark.parametrize(
    "text", ["=web", "app=web tier=x", "zone in a", "zone in ()x", "-app", "a=b=c", "app,,", "(", "!"]
)
def test_what_makes_no_sense_is_shown_with_the_form(text: str) -> None:
    with pytest.raises(errors.Invalid, match="not a label selector") as raised:
        selectors.parse(text)
    assert "zone in (a, b)" in raised.value.hint


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """Never anything else, however it looks."""
    try:
        answer = selectors.parse(text)(WEB)
    except errors.Invalid:
        return
    assert answer in {True, False}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")), st.sampled_from("abc"), st.sampled_from("xyz"))
def test_a_form_and_its_opposite_share_the_world(labels: dict[str, str], key: str, value: str) -> None:
    def fits(text: str) -> bool:
        return selectors.parse(text)(labels)

    assert fits(f"{key}={value}") is not fits(f"{key}!={value}")
    assert fits(f"{key} in ({value})") is not fits(f"{key} notin ({value})")
    assert fits(key) is not fits(f"!{key}")
