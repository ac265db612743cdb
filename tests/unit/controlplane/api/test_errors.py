"""What a caller is told when something is refused."""

import pytest

from controlplane.api import errors
from controlplane.core import request_errors
from controlplane.store import errors as store_errors
from images import errors as image_errors


def mistakes(number: int, text: str = "is wrong") -> list[request_errors.Mistake]:
    return [request_errors.Mistake(object=f"Service default/s{n}", path="spec", message=text) for n in range(number)]


def test_one_mistake_is_the_message_itself() -> None:
    error = request_errors.of_mistakes(request_errors.Invalid, mistakes(1), hint="fix it")
    described = errors.describe(error)
    assert (described.message, described.hint) == ("Service default/s0: spec: is wrong", "fix it")
    assert [(field.object, field.path, field.message) for field in described.fields] == [
        ("Service default/s0", "spec", "is wrong")
    ]


@pytest.mark.parametrize("number", [2, 50, 5_000])
@pytest.mark.parametrize("text", ["wrong", "wrong " * 1_000, "ä" * 3_000])
def test_the_error_always_fits_into_the_metadata(number: int, text: str) -> None:
    described = errors.describe(request_errors.of_mistakes(request_errors.Invalid, mistakes(number, text)))
    assert described.ByteSize() <= errors.MAX_ERROR_BYTES
    left_out = number - (len(described.fields) - 1)
    if described.fields[-1].object:
        assert len(described.fields) == number
    else:
        assert described.fields[-1].message == f"and {left_out} more"


def test_messages_are_one_line() -> None:
    described = errors.describe(request_errors.Unknown("a\nb\tc"))
    assert described.message == "a b c"


def test_an_ambiguous_write_asks_to_look_and_a_plain_one_says_that_nothing_was_written() -> None:
    lost = errors.describe(store_errors.Unavailable("no answer", ambiguous=True))
    assert "look whether the change is there" in lost.hint
    assert "nothing was written" in errors.describe(store_errors.Unavailable("no answer")).hint


def test_the_leader_is_named() -> None:
    described = errors.describe(request_errors.NotLeader("logs", "10.0.0.2:7400"))
    assert described.leader == "10.0.0.2:7400"
    assert "10.0.0.2:7400" in described.hint


def every_error(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(each for below in root.__subclasses__() for each in every_error(below))]


@pytest.mark.parametrize(
    "error", [*every_error(request_errors.RequestError)[1:], *every_error(image_errors.ImageError)]
)
def test_every_error_that_is_meant_has_a_status_code(error: type[Exception]) -> None:
    assert errors.code_of(error.__new__(error)) is not None


def test_what_nobody_meant_has_none() -> None:
    assert errors.code_of(ZeroDivisionError()) is None
    assert errors.code_of(store_errors.Fatal("a bug")) is None
