"""What is known of a configuration is compared and not read again; and only what is equal is known."""

from collections.abc import Iterator
from typing import Any

import pytest

from runtime import defaults, known, spec
from runtime.fields import Fields


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    known._known.clear()
    yield
    known._known.clear()


class Reader:
    """Reads objects, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def read(self, value: dict[str, Any], path: str = "mounts[0]") -> str:
        def of(fields: Fields) -> str:
            self.times += 1
            return fields.text("name")

        return known.read(Fields(value, path), of)


def test_nothing_is_kept_outside_of_learning() -> None:
    reader = Reader()
    assert [reader.read({"name": "a"}) for _ in range(2)] == ["a", "a"]
    assert reader.times == 2


def test_what_was_learned_is_not_read_again() -> None:
    reader = Reader()
    with known.learning():
        reader.read({"name": "a"})
        reader.read({"name": "b"})
    assert [reader.read({"name": name}) for name in "abab"] == ["a", "b", "a", "b"]
    assert reader.times == 2


def test_what_differs_or_stands_elsewhere_is_read() -> None:
    reader = Reader()
    with known.learning():
        reader.read({"name": "a"})
    assert reader.read({"name": "b"}) == "b"
    assert reader.read({"name": "a"}, "mounts[1]") == "a"
    assert reader.times == 3


def test_a_change_of_what_was_learned_is_noticed() -> None:
    """The caller's object is the caller's: it may be changed and read again."""
    reader = Reader()
    value = {"name": "a", "options": ["ro"]}
    with known.learning():
        reader.read(value)
    value["options"].append("rw")  # type: ignore[attr-defined]
    reader.read(value)
    assert reader.times == 2


def test_a_configuration_is_the_same_whether_its_parts_are_known_or_not() -> None:
    config = defaults.config(["true"], cgroups_path="/a")
    plain = spec.parse(config)
    with known.learning():
        spec.parse(config)
    assert known._known, "something of the default configuration is learned"
    assert spec.parse(config) == plain
    config["linux"]["resources"]["pids"]["limit"] = 7
    config["mounts"][1]["options"].append("noexec")
    changed = spec.parse(config)
    assert changed.resources.pids_limit == 7
    assert changed.mounts[1] != plain.mounts[1]
    assert changed.mounts[0] is spec.parse(config).mounts[0]
