"""What a token service may answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from images.registry import errors, tokens


def answer(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def read(data: bytes) -> tokens.Token:
    return tokens.read_token(data, what="token service", now_s=time.monotonic())


@pytest.mark.parametrize(
    ("fields", "life_s"),
    [
        ({"token": "abc"}, 60),
        ({"access_token": "abc", "expires_in": 600}, 600),
        ({"token": "abc", "access_token": "other", "expires_in": 10**12}, 24 * 3600),
        ({"token": "abc", "expires_in": 0}, 0),
    ],
)
def test_a_token_counts_from_when_it_was_asked_for_and_is_given_up_early(fields: dict[str, Any], life_s: int) -> None:
    token = tokens.read_token(answer(**fields), what="token service", now_s=1000)
    assert (token.header, token.expires_at_s) == ("Bearer abc", 1000 + 0.9 * life_s)


def test_fresh() -> None:
    assert read(answer(token="abc", expires_in=60)).is_fresh
    assert not read(answer(token="abc", expires_in=0)).is_fresh


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"hunter2",
        answer(),
        answer(token=""),
        answer(token="hunter2\r\nX-Evil: 1"),
        answer(token="hunter2 and more"),
        answer(token=["hunter2"]),
        answer(token="hunter2", expires_in="soon"),
        answer(token="hunter2", expires_in=-1),
        b'{"token": "hunter2", "token": "b"}',
    ],
)
def test_what_is_no_token_is_refused_without_being_quoted(data: bytes) -> None:
    """An answer could hold a secret, and a header could be made of two."""
    with pytest.raises(errors.BadAnswer, match="is it a token service") as told:
        read(data)
    assert "hunter2" not in str(told.value)


def test_secrets_do_not_show() -> None:
    assert "abc" not in repr(read(answer(token="abc")))
