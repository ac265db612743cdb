"""What instructions write down: values in, values out, in Docker's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from images import errors
from images.build import configuration, dockerfile
from images.manifest import Platform

BASE = {
    "config": {
        "Env": ["A=1", "PATH=/bin"],
        "Cmd": ["base"],
        "Labels": {"l": "base"},
        "WorkingDir": "/w",
        "OnBuild": ["RUN x"],
        "ArgsEscaped": True,
    },
    "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "base", "comment": "kept"}],
    "author": "them",
}


@pytest.mark.parametrize(
    "config",
    [
        {"OnBuild": [1]},
        {"OnBuild": "COPY a b"},
        {"OnBuild": 5},
        {"Shell": 5},
        {"Env": "A=b"},
        {"Labels": ["a"]},
        {"Volumes": "x"},
        {"User": 5},
        {"WorkingDir": []},
    ],
)
def test_a_base_that_instructions_cannot_build_upon_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidImage, match=rf"^base: config\.{next(iter(config))}"):
        applied("ENV a=b", {"config": config})
    assert applied("ENV a=b", {"config": dict.fromkeys(config)}).env["a"] == "b", "nothing is nothing"


def applied(text: str, base: dict[str, Any] | None = None) -> configuration.Settings:
    data = json.dumps(BASE if base is None else base).encode()
    settings = configuration.without_triggers(configuration.inherited(data, what="base"))
    (stage,) = dockerfile.parse(f"FROM base\n{text}\n".encode()).stages
    for instruction in stage.instructions:
        settings = configuration.applied(settings, instruction)
    return settings


@pytest.mark.parametrize(
    ("text", "entry", "expected"),
    [
        ("ENV B=2 A=3", "Env", ["A=3", "PATH=/bin", "B=2"]),
        ("LABEL m=x", "Labels", {"l": "base", "m": "x"}),
        ("WORKDIR d\nWORKDIR ../e", "WorkingDir", "/w/e"),
        ("WORKDIR /x/./y//..", "WorkingDir", "/x"),
        ("USER app:app", "User", "app:app"),
        ("CMD a b", "Cmd", ["/bin/sh", "-c", "a b"]),
        ('CMD ["a", "b"]', "Cmd", ["a", "b"]),
        ('SHELL ["/bin/x", "-e"]\nCMD a b', "Cmd", ["/bin/x", "-e", "a b"]),
        ("ENTRYPOINT a", "Cmd", []),
        ("CMD b\nENTRYPOINT a", "Cmd", ["/bin/sh", "-c", "b"]),
        ("CMD []", "Cmd", []),
        ("VOLUME /a /b\nVOLUME /c", "Volumes", {"/a": {}, "/b": {}, "/c": {}}),
        ("STOPSIGNAL SIGUSR1", "StopSignal", "SIGUSR1"),
        ("ONBUILD COPY . /", "OnBuild", ["COPY . /"]),
        ("HEALTHCHECK NONE", "Healthcheck", {"Test": ["NONE"]}),
        (
            'HEALTHCHECK --interval=5s --retries=2 CMD ["a"]',
            "Healthcheck",
            {"Test": ["CMD", "a"], "Interval": 5_000_000_000, "Retries": 2},
        ),
        ("USER x", "ArgsEscaped", True),
    ],
)
def test_instructions_change_their_entry(text: str, entry: str, expected: object) -> None:
    assert applied(text).config[entry] == expected


def test_a_document_has_what_the_base_had_and_no_empty_entries() -> None:
    event = configuration.Event(created="2021-01-01T00:00:00Z", created_by="CMD []", empty=True)
    platform = Platform(architecture="arm", variant="v7")
    data = applied("CMD []").told(event).document(platform, ("sha256:x",), "2021-01-01T00:00:00Z")
    document = json.loads(data)
    assert "Cmd" not in document["config"]
    assert "OnBuild" not in document["config"]
    assert document["history"][0] == BASE["history"][0]  # type: ignore[index]
    assert document["history"][1]["empty_layer"] is True
    assert (document["author"], document["os"], document["variant"]) == ("them", "linux", "v7")
    assert document["rootfs"] == {"type": "layers", "diff_ids": ["sha256:x"]}


def test_a_path_is_always_there() -> None:
    """Programs are looked for in it, also in an image that says nothing."""
    assert applied("USER x", {"config": {}}).env == {"PATH": configuration.DEFAULT_PATH}
    assert configuration.SCRATCH.env["PATH"] == configuration.DEFAULT_PATH


def test_a_base_that_is_no_configuration_is_refused() -> None:
    with pytest.raises(errors.InvalidImage, match=r"base: config\.Env\[0\]: expected text"):
        applied("", {"config": {"Env": [1]}})


def test_layers_of_a_base_that_does_not_tell_have_lines_of_their_own() -> None:
    """Else the base's layers would be told to be made by the Dockerfile."""
    base = {**BASE, "rootfs": {"type": "layers", "diff_ids": ["a", "b", "c"]}}
    base["history"] = [{"created_by": "ENV A=1", "empty_layer": True}, {"created_by": "RUN b"}]
    lines = [(line.get("created_by"), bool(line.get("empty_layer"))) for line in applied("", base).history]
    assert lines == [(None, False), (None, False), ("ENV A=1", True), ("RUN b", False)]
