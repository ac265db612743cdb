"""What is typed, and what it means."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchctl import arguments, metadata, nodes, words
from orchctl.errors import InvalidInput
from orchctl.verbs import scale
from protos.orch.v1 import objects_pb2


@pytest.mark.parametrize("word", ["service", "services", "svc", "Service", "SERVICES"])
def test_a_kind_has_many_words(word: str) -> None:
    assert words.kind(word).name == "service"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="there is no kind 'servise'") as raised:
        words.kind("servise")
    assert raised.value.hint == "did you mean service?"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["service", "a", "b"], [("service", "a"), ("service", "b")]),
        (["svc/a", "node/n1"], [("service", "a"), ("node", "n1")]),
        (["image", "team/hello:1"], [("image", "team/hello:1")]),
        (["image/team/hello:1"], [("image", "team/hello:1")]),
        (["image", "hello"], [("image", "hello:latest")]),
        (["image", "Not A Name"], [("image", "Not A Name")]),
    ],
)
def test_objects_are_named_in_two_ways(given: list[str], meant: list[tuple[str, str]]) -> None:
    assert [(kind.name, name) for kind, name in words.split_references(given)] == meant


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["hello=9"], {"hello": 9}),
        (["hello", "9"], {"hello": 9}),
        (["svc/a=1", "Service/b=0"], {"a": 1, "b": 0}),
        (["svc/a", "2"], {"a": 2}),
    ],
)
def test_a_scale_is_typed_in_two_ways(typed: Sequence[str], wanted: dict[str, int]) -> None:
    assert scale.parse(typed) == wanted


def test_taints_are_set_and_removed() -> None:
    taint = objects_pb2.Taint(key="gpu", value="a100", effect=objects_pb2.TAINT_EFFECT_NO_EXECUTE)
    assert nodes.parse_taints(["gpu=a100:no-execute", "old-", "x:no-schedule-"]) == ([taint], ["old", "x:no-schedule"])
    assert nodes.parse_taints(["gpu=a100:no-execute", "gpu:no-schedule-"]) == ([taint], ["gpu:no-schedule"])


def parse_labels(changes: Sequence[str]) -> object:
    return metadata.parse(changes, "labels")


def test_objects_stand_before_their_changes() -> None:
    """The first word that is a change ends the names; a value may hold anything."""
    references, changes = metadata.split(["service", "web", "api", "tier=front", "old-", "note=a=b-", "no="])
    assert [(kind.name, name) for kind, name in references] == [("service", "web"), ("service", "api")]
    assert metadata.parse(changes, "annotations") == ({"tier": "front", "note": "a=b-", "no": ""}, ["old"])
    with pytest.raises(InvalidInput, match="a kind and a name are needed"):
        metadata.split(["tier=front"])


def test_a_command_is_words_or_a_list() -> None:
    assert arguments.words("sh -c 'a b'", "--cmd") == ["sh", "-c", "a b"]
    assert arguments.words('["sh", "-c", "a b"]', "--cmd") == ["sh", "-c", "a b"]
    assert arguments.words("", "--cmd") == []


@pytest.mark.parametrize(
    ("parse", "typed", "message"),
    [
        (words.split_references, ["service"], "a kind and a name are needed"),
        (words.split_references, ["service/"], "a kind and a name are needed"),
        (scale.parse, ["hello"], "not a service and a number: 'hello'"),
        (scale.parse, ["hello=-1"], "not a service and a number"),
        (scale.parse, ["hello=99999999999"], "not a service and a number"),
        (scale.parse, ["a=1", "svc/a=2"], "service 'a' is named twice"),
        (scale.parse, ["node/n1=1"], "not a service: 'node/n1'"),
        (scale.parse, ["service/=1"], "not a service: 'service/'"),
        (nodes.parse_taints, ["gpu"], "not a change of a taint: 'gpu'"),
        (nodes.parse_taints, ["gpu=a:never"], "not a change of a taint"),
        (nodes.parse_taints, [":no-schedule"], "not a change of a taint"),
        (nodes.parse_taints, ["gpu=a:no-schedule", "gpu-"], "taint 'gpu' is set and removed at once"),
        (nodes.parse_taints, ["gpu:no-schedule-", "gpu:no-schedule"], "taint 'gpu:no-schedule' is set and removed"),
        (parse_labels, ["app"], "not a change of labels: 'app'"),
        (parse_labels, ["-"], "not a change of labels"),
        (parse_labels, [], "nothing to change"),
        (parse_labels, ["a=1", "a-"], "'a' is set and removed at once"),
        (arguments.environment, ["=x"], "not an environment variable: '=x'"),
    ],
)
def test_what_makes_no_sense_is_refused(parse: Callable[[Sequence[str]], Any], typed: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse(typed)


@pytest.mark.parametrize("text", ["sh -c 'open", "[1, 2]", '["a"'])
def test_a_command_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--cmd"):
        arguments.words(text, "--cmd")
