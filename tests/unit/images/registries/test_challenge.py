"""WWW-Authenticate, as registries write it and as strangers might."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.registry import challenge

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/web:pull"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="tests"', [("basic", {"realm": "tests"})]),
        ("BASIC", [("basic", {})]),
        (
            "bearer realm = https://a.example/t , service=x",
            [("bearer", {"realm": "https://a.example/t", "service": "x"})],
        ),
        (r'Bearer realm="a\"b\\c,d"', [("bearer", {"realm": 'a"b\\c,d'})]),
        (
            'Negotiate, Basic realm="a", Bearer realm="b"',
            [("negotiate", {}), ("basic", {"realm": "a"}), ("bearer", {"realm": "b"})],
        ),
        ('Bearer realm="a", realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="never ends', [("bearer", {}), ("realm", {})]),
        ('realm="a"', [("realm", {})]),
        ("", []),
        ('"', []),
    ],
)
def test_challenges_are_read_as_far_as_they_are_well_formed(
    header: str, expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert [(entry.scheme, dict(entry.parameters)) for entry in challenge.parse([header])] == expected


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([HUB], "bearer"),
        (['Basic realm="x"', HUB], "bearer"),
        ([HUB, 'Basic realm="x"'], "bearer"),
        (["Bearer", 'Basic realm="x"'], "basic"),
        (["Negotiate"], None),
        ([], None),
    ],
)
def test_a_token_service_goes_before_a_password(headers: list[str], scheme: str | None) -> None:
    chosen = challenge.choose(challenge.parse(headers))
    assert (chosen.scheme if chosen else None) == scheme


@given(st.text(alphabet='Bearer realm=",\\\t x', max_size=300))
def test_no_text_breaks_it(header: str) -> None:
    """Strangers write it."""
    for entry in challenge.parse([header]):
        assert entry.scheme == entry.scheme.lower() != ""


def test_hostile_text_costs_one_pass() -> None:
    """A megabyte of openings; a parser that goes back at each of them would not be done in a lifetime."""
    assert challenge.parse(['Bearer realm="' + '\\"' * 500_000])[0].parameters == {}
    assert len(challenge.parse(["a " * 100_000])) == 100_000
