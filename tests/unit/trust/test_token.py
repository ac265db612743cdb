"""Join tokens."""

import hypothesis
import pytest
from hypothesis import strategies as st

from trust.core import token
from trust.core.identity import Malformed, Role

PIN = "5f" * 32
SECRETS = st.binary(min_size=16, max_size=16)


@hypothesis.given(role=st.sampled_from(Role), chance=SECRETS)
def test_a_token_is_read_as_it_was_written(role: Role, chance: bytes) -> None:
    """Whatever the role and the secret."""
    made = token.make(role, PIN, chance)
    assert token.parse(f" {made}\n") == made
    assert token.fits(made.pin, PIN)
    assert token.is_secret(made, made.digest)


@hypothesis.given(first=SECRETS, second=SECRETS)
def test_another_secret_is_not_taken_for_it(first: bytes, second: bytes) -> None:
    """What is kept of a token fits that token alone."""
    kept = token.make(Role.NODE, PIN, first).digest
    assert token.is_secret(token.make(Role.NODE, PIN, second), kept) is (first == second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a join token"),
        ("SWMTKN-1-x", "not a join token"),
        ("orch-2.node.x.y", "version 'orch-2'"),
        (f"orch-1.node.{'0' * 32}", "damaged"),
        (f"orch-1.node.{'0' * 31}.{'a' * 26}", "damaged"),
        (f"orch-1.node.{'0' * 32}.{'a' * 25}", "damaged"),
        (f"orch-1.node.{'0' * 32}.{'a' * 25}1", "damaged"),
        (f"orch-1.king.{'0' * 32}.{'a' * 26}", "'king' is no role"),
    ],
)
def test_what_is_no_token_is_named(text: str, said: str) -> None:
    """One sentence, and the secret is not repeated in it."""
    with pytest.raises(Malformed, match=said) as refused:
        token.parse(text)
    assert "aaaaaaaa" not in str(refused.value)


def test_a_token_hides_its_secret_where_programs_print_it() -> None:
    """A traceback or a log may hold its repr."""
    made = token.make(Role.ADMIN, PIN, b"0123456789abcdef")
    assert made.secret not in repr(made)
    assert made.secret in str(made)


@pytest.mark.parametrize("pin", ["", "5f", "5f" * 16 + "0", "5e" * 16])
def test_a_short_or_other_pin_fits_nothing(pin: str) -> None:
    """An empty pin would fit every root."""
    assert not token.fits(pin, PIN)
