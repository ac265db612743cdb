"""docs/dockerfiles.md names what there is, and its examples are what is really said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from images import errors
from images.build import commands, copies, dockerfile, lines, mounts, scope, variables

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/dockerfiles.md").read_text()


def test_every_instruction_flag_and_key_stands_on_the_page() -> None:
    flags = {
        f"--{flag}"
        for known in (commands.FLAGS, commands.CHECK_FLAGS, copies.FLAGS, copies.ADD_FLAGS)
        for flag in known
    }
    keys = {key for known in mounts.KEYS.values() for key in known} - {"source"}
    refused = {f"--{flag}" for known in (commands.REFUSED, copies.REFUSED_IN_ADD) for flag in known}
    wanted = {
        *dockerfile.KEYWORDS,
        *flags,
        *refused,
        *keys,
        *mounts.KEYS,
        *scope.platform_arguments(target="a/b", build="a/b"),
    }
    said = set(re.findall(r"--[a-z-]+|\w+", PAGE))
    missing = {word for word in wanted if word not in said and f"TARGET{word.removeprefix('BUILD')}" not in said}
    assert missing == set()


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"{lines.MAX_SIZE_BYTES >> 20} MiB and {lines.MAX_INSTRUCTIONS:,} instructions" in PAGE
    assert f"at most {variables.MAX_LENGTH >> 10} KiB" in PAGE
    assert [name for name in scope.PROXIES if name.isupper() and f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    ("text", "number"), [("FROM a\n\nCOPY --form=0 a b", 3), ("FROM a\n" + "USER b\n" * 7 + "RUM c", 9)]
)
def test_the_messages_on_the_page_are_real(text: str, number: int) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        dockerfile.parse(text.encode())
    assert str(raised.value).startswith(f"Dockerfile:{number}: ")
    assert str(raised.value) in PAGE
