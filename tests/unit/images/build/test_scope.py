"""Scopes: who sees an ARG, what goes before what, and what a stage hands on."""

from __future__ import annotations

import pytest

from images import errors
from images.build import dockerfile, expansion, instructions, scope

PLATFORM = scope.platform_arguments(target="linux/arm/v7", build="linux/amd64")


def _after(text: str, base: dict[str, str] | None = None, **build_args: str) -> scope.Scope:
    """The scope at the end of the last stage, carried out as a builder does."""
    parsed = dockerfile.parse(text.encode())
    found = scope.whole_file(parsed, build_args=build_args, platform=PLATFORM).stage(base or {})
    for each in parsed.stages[-1].instructions:
        instruction = expansion.expanded(each, found.variables, parsed.escape)
        match instruction:
            case instructions.Arg():
                found = found.declare(instruction)
            case instructions.Env():
                found = found.set(instruction)
            case _:
                raise AssertionError(f"{instruction} changes no scope")
    return found


@pytest.mark.parametrize(
    ("text", "build_args", "name", "value"),
    [
        ("FROM x\nARG a=1", {}, "a", "1"),
        ("FROM x\nARG a=1", {"a": "2"}, "a", "2"),
        ("FROM x\nARG a=1", {"a": ""}, "a", ""),
        ("FROM x\nARG a", {}, "a", None),
        ("FROM x\nARG a", {"a": "2"}, "a", "2"),
        ("FROM x", {"a": "2"}, "a", None),
        ("ARG a=1\nFROM x", {}, "a", None),
        ("ARG a=1\nFROM x\nARG a", {}, "a", "1"),
        ("ARG a=1\nFROM x\nARG a", {"a": "2"}, "a", "2"),
        ("ARG a=1\nFROM x\nARG a=3", {}, "a", "3"),
        ("ARG a=1 b=$a-2\nFROM x\nARG b", {}, "b", "1-2"),
        ("ARG b=$TARGETARCH\nFROM x\nARG b", {}, "b", "arm"),
        ("FROM x\nARG a=1\nARG a=2", {}, "a", "2"),
        ("FROM x\nARG a=1\nARG a", {}, "a", "1"),
        ("FROM x\nARG a=1\nENV a=2", {}, "a", "2"),
        ("FROM x\nENV a=2\nARG a=1", {"a": "3"}, "a", "2"),
        ("FROM x\nARG a=1\nENV b=$a\nARG a=2", {}, "b", "1"),
        ("FROM x\nENV a=1\nENV a=2 b=$a", {}, "b", "1"),
        ("FROM x\nENV b=${a:-unset}\nARG a=1", {}, "b", "unset"),
        ("FROM x\nARG TARGETARCH", {}, "TARGETARCH", "arm"),
        ("FROM x\nARG TARGETVARIANT BUILDPLATFORM", {}, "BUILDPLATFORM", "linux/amd64"),
        ("FROM x\nARG TARGETARCH=riscv64", {}, "TARGETARCH", "riscv64"),
        ("FROM x\nARG TARGETARCH", {"TARGETARCH": "s390x"}, "TARGETARCH", "s390x"),
        ("FROM x", {}, "TARGETARCH", None),
        ("FROM y\nARG a=1\nFROM x", {}, "a", None),
        ("FROM x", {"HTTP_PROXY": "p"}, "HTTP_PROXY", None),
        ("FROM x\nARG HTTP_PROXY", {"HTTP_PROXY": "p"}, "HTTP_PROXY", "p"),
    ],
)
def test_what_a_name_means(text: str, build_args: dict[str, str], name: str, value: str | None) -> None:
    """None is a variable that is not set."""
    assert _after(text, **build_args).variables.get(name) == value


def test_a_stage_inherits_the_environment_of_its_base_alone() -> None:
    found = _after("FROM y\nARG a=1\nENV e=$a\nFROM x\nENV f=$e$a", {"e": "base"})
    assert found.environment == {"e": "base", "f": "base"}
    assert found.variables == found.environment


def test_an_arg_without_a_value_is_declared_all_the_same() -> None:
    """Whoever writes it knows that it may be missing, and is not warned."""
    found = _after("ARG outside\nFROM x\nARG a b=1")
    assert (found.declared, found.arguments) == ({"a", "b"}, {"b": "1"})


def test_args_are_no_part_of_the_environment_that_stays() -> None:
    found = _after("FROM x\nARG a=1\nENV b=2")
    assert (found.environment, found.run_environment) == ({"b": "2"}, {"a": "1", "b": "2"})


def test_proxies_reach_programs_without_an_arg() -> None:
    found = _after("FROM x\nENV no_proxy=mine", HTTP_PROXY="p", no_proxy="theirs", other="o")
    assert found.proxies == {"HTTP_PROXY": "p", "no_proxy": "theirs"}
    assert found.run_environment == {"HTTP_PROXY": "p", "no_proxy": "mine"}


def test_from_sees_the_args_before_it_and_the_platform() -> None:
    parsed = dockerfile.parse(b"ARG a=1\nARG b\nARG c=2\nFROM x")
    found = scope.whole_file(parsed, build_args={"c": "3"}, platform=PLATFORM).globals
    assert (found["a"], found.get("b"), found["c"], found["TARGETPLATFORM"]) == ("1", None, "3", "linux/arm/v7")


def test_a_build_arg_that_nothing_takes_is_told() -> None:
    parsed = dockerfile.parse(b"ARG outer\nFROM x\nARG version")
    given = ["outer", "version", "verison", "https_proxy", "TARGETOS"]
    assert scope.undeclared(parsed, given, PLATFORM) == (
        "Dockerfile: no ARG takes --build-arg verison; did you mean version?",
    )
    assert scope.undeclared(dockerfile.parse(b"FROM x"), ["a"], {}) == (
        "Dockerfile: no ARG takes --build-arg a; it declares none",
    )


def test_the_platform_has_four_names_for_each_side() -> None:
    assert PLATFORM == {
        "TARGETPLATFORM": "linux/arm/v7",
        "TARGETOS": "linux",
        "TARGETARCH": "arm",
        "TARGETVARIANT": "v7",
        "BUILDPLATFORM": "linux/amd64",
        "BUILDOS": "linux",
        "BUILDARCH": "amd64",
        "BUILDVARIANT": "",
    }


@pytest.mark.parametrize("platform", ["linux", "", "linux/", "/amd64", "a/b/c/d", "linux/amd64\n", "Linux/amd64"])
def test_a_platform_that_is_none_is_told(platform: str) -> None:
    with pytest.raises(errors.InvalidDockerfile, match="write SYSTEM/MACHINE, as in linux/amd64"):
        scope.platform_arguments(target=platform, build="linux/amd64")
