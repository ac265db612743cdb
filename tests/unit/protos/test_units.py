"""Quantities: what people write, and the integers that it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import units
from protos.orch.v1 import options_pb2 as options

QUANTITIES = st.integers(0, units.INT64_MAX)
LAST_MOMENT = units.parse_timestamp("9999-12-31T23:59:59.999Z")


@given(value=QUANTITIES)
def test_bytes_are_read_back(value: int) -> None:
    assert units.parse_bytes(units.format_bytes(value)) == value


@given(value=st.integers(0, 10**10 - 1))
def test_processors_are_read_back(value: int) -> None:
    assert units.parse_cpu(units.format_cpu(value)) == value


@given(value=QUANTITIES)
def test_durations_are_read_back(value: int) -> None:
    assert units.parse_duration(units.format_duration(value)) == value


@given(value=st.integers(0, LAST_MOMENT))
def test_moments_are_read_back(value: int) -> None:
    assert units.parse_timestamp(units.format_timestamp(value)) == value


@given(value=st.integers(-(2**63), units.INT64_MAX))
def test_plain_numbers_are_read_back(value: int) -> None:
    assert units.parse(options.UNIT_NONE, units.format(options.UNIT_NONE, value)) == value


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        (options.UNIT_BYTES, "0", 0),
        (options.UNIT_BYTES, "1024", 1024),
        (options.UNIT_BYTES, "64Mi", 67_108_864),
        (options.UNIT_BYTES, "64MiB", 67_108_864),
        (options.UNIT_BYTES, "10MB", 10_000_000),
        (options.UNIT_BYTES, "500k", 500_000),
        (options.UNIT_BYTES, "1.5Gi", 1_610_612_736),
        (options.UNIT_CPU, "500m", 500),
        (options.UNIT_CPU, "0.5", 500),
        (options.UNIT_CPU, "2", 2000),
        (options.UNIT_CPU, "0.001", 1),
        (options.UNIT_DURATION, "0", 0),
        (options.UNIT_DURATION, "250ms", 250),
        (options.UNIT_DURATION, "1.5s", 1500),
        (options.UNIT_DURATION, "1m30s", 90_000),
        (options.UNIT_DURATION, "1d", 86_400_000),
        (options.UNIT_TIMESTAMP, "1970-01-01T00:00:00Z", 0),
        (options.UNIT_TIMESTAMP, "1970-01-01T01:00:00.5+01:00", 500),
    ],
)
def test_what_a_text_stands_for(unit: units.Unit, text: str, value: int) -> None:
    assert units.parse(unit, text) == value


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (options.UNIT_BYTES, 0, "0"),
        (options.UNIT_BYTES, 67_108_864, "64Mi"),
        (options.UNIT_BYTES, 1_610_612_736, "1536Mi"),
        (options.UNIT_BYTES, 1000, "1000"),
        (options.UNIT_CPU, 500, "500m"),
        (options.UNIT_CPU, 2000, "2"),
        (options.UNIT_DURATION, 0, "0s"),
        (options.UNIT_DURATION, 90_000, "1m30s"),
        (options.UNIT_DURATION, 1250, "1s250ms"),
        (options.UNIT_TIMESTAMP, 500, "1970-01-01T00:00:00.500Z"),
    ],
)
def test_how_a_number_is_written(unit: units.Unit, value: int, text: str) -> None:
    assert units.format(unit, value) == text


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "Mi", "1mi", "1kib", "-1", "+1", "1e3", "1_000", "0x10", "1.", ".5", "\u0661"]
)
def test_what_is_no_number_of_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 64Mi, 1\.5Gi or 500k"):
        units.parse_bytes(text)


@pytest.mark.parametrize("text", ["", "m", "-1", "1e3", "1 m", "500M", "1.", "0.5.5", "half", "\u0661"])
def test_what_is_no_number_of_processors(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 0\.5, 2 or 500m"):
        units.parse_cpu(text)


@pytest.mark.parametrize("text", ["", "10", "s", "1:30", "10 s", "10S", "-5s", "1s ", "1s,2s", "1w", "1e3s", "\u0661s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 10s, 1m30s or 250ms"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-13-01T00:00:00Z", "12:00:00Z"])
def test_what_is_no_moment(text: str) -> None:
    """A moment without a time zone is no moment."""
    with pytest.raises(ValueError, match="write it like 2026-01-31T12:00:00Z"):
        units.parse_timestamp(text)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (options.UNIT_BYTES, "0.1"),
        (options.UNIT_BYTES, "99999Pi"),
        (options.UNIT_CPU, "0.0001"),
        (options.UNIT_DURATION, "0.5ms"),
        (options.UNIT_DURATION, "99999999999999999999d"),
    ],
)
def test_what_is_not_whole_or_does_not_fit_is_refused_rather_than_rounded(unit: units.Unit, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a whole number of .* that fits in 63 bits"):
        units.parse(unit, text)


@pytest.mark.parametrize("text", ["", "1.0", "1_0", "+1", "0x1", "1e3", "one", "99999999999999999999", "\u0661"])
def test_what_is_no_plain_number(text: str) -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        units.parse(options.UNIT_NONE, text)
