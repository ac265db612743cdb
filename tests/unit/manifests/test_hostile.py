"""A thousand hostile manifests; `make bench ONLY=doorfuzz` reads tens of thousands."""

import hypothesis
import pytest

from tests.support import manifestfuzz


@hypothesis.settings(max_examples=1_000, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=manifestfuzz.SOURCES)
def test_manifests_are_read_or_refused_whatever_their_bytes(data: bytes) -> None:
    """In plain lines with a place each."""
    manifestfuzz.check(data)


@hypothesis.settings(max_examples=20, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=manifestfuzz.HUGE)
def test_what_is_deep_or_long_or_expands_costs_no_more_than_its_bounds(data: bytes) -> None:
    """Thousands of levels, documents and keys, and aliases of aliases."""
    manifestfuzz.check(data)


@pytest.mark.parametrize("sign", ["\\u202e", "\\u2066", "\\u200f", "\\x1b", "\\u0085"])
def test_nothing_in_a_manifest_turns_the_words_about_it_around(sign: str) -> None:
    """As a kind, a key or a value; a person reads the message in a terminal."""
    for text in (f'kind: "{sign}"', f'kind: Service\n"{sign}": a', f'kind: Service\nspec: {{mode: "{sign}"}}'):
        assert not manifestfuzz.check(text.encode())
