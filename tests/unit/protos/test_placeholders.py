"""What stands in `${…}` is replaced when it is ours, and never otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import placeholders

VALUES = {"task.slot": "2", "node.name": "n1", "service.name": "${task.slot}"}
LABELS = {"zone": "a", "disk/kind": "ssd"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain $HOME {x} $", "plain $HOME {x} $"),
        ("replica ${task.slot} on ${node.name}", "replica 2 on n1"),
        ("${HOME}${task}${other.slot}", "${HOME}${task}${other.slot}"),
        ("$${task.slot} $${HOME}", "${task.slot} ${HOME}"),
        ("$$${task.slot}", "$${task.slot}"),
        ("${node.labels.zone}-${node.labels.disk/kind}-${node.labels.none}", "a-ssd-"),
        ("${service.name}", "${task.slot}"),
        ("${task.nonsense} ${task.slot", "${task.nonsense} ${task.slot"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    """Ours alone, once, and not what an expansion brings."""
    assert placeholders.expand(text, VALUES, LABELS) == expected


@given(st.text(st.sampled_from("a${}.task")))
def test_a_text_can_always_be_kept_as_it_is(text: str) -> None:
    """By doubling the $ of every `${`."""
    if "$$" not in text:
        assert placeholders.expand(text.replace("${", "$${"), VALUES, LABELS) == text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("${task.slot} ${node.labels.any} ${HOME} $${task.x}", []),
        ("${task.slott} ${node.label.x}", ["task.slott", "node.label.x"]),
        ("${node.labels.}", ["node.labels."]),
    ],
)
def test_names_that_there_are_not(text: str, names: list[str]) -> None:
    """Only such as look like ours."""
    assert list(placeholders.unknown(text)) == names
