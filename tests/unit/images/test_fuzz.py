"""A few thousand damaged and hostile archives; `make bench ONLY=imagefuzz` reads a hundred thousand."""

import pytest

from tests.support import imagefuzz

SEED = 20260101


@pytest.mark.parametrize("hundred", range(30))
def test_archives_are_read_or_refused_whatever_their_bytes(hundred: int) -> None:
    for number in range(hundred * 100, hundred * 100 + 100):
        try:
            imagefuzz.check(imagefuzz.case(SEED, number))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with what makes it again
            pytest.fail(f"imagefuzz.case({SEED}, {number}): {type(error).__name__}: {error}")


def test_some_are_read_and_some_are_refused() -> None:
    """Otherwise the changes would be too mild or too wild to try anything."""
    good = sum(imagefuzz.check(imagefuzz.case(SEED, number)) for number in range(500))
    assert 50 < good < 450
