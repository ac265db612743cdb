"""Patterns: Go's rules for COPY, Docker's for `.dockerignore`; no pattern takes longer than it should."""

from __future__ import annotations

import fnmatch
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from images import errors
from images.build import globs, ignore


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True),
        ("abc", "ab", False),
        ("abc", "abcd", False),
        ("*", "abc", True),
        ("*", "", True),
        ("*", ".hidden", True),
        ("*c", "abc", True),
        ("a*", "ab/c", False),
        ("a*/b", "a/b", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e/f", "axbxcxdxe/f", True),
        ("a*b*c*d*e/f", "axbxcxdxe/xxx/f", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a?c", "aéc", True),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a[^a]b", "a/b", False),
        ("[a-zA-Z_0-9]x", "_x", True),
        ("[\\]a]", "]", True),
        ("[\\-x]", "-", True),
        ("[x\\-]", "z", False),
        ("[z-a]", "m", False),
        ("[^z-a]", "m", True),
        ("[]x", "a", None),
        ("[-x]", "a", None),
        ("[x-]", "a", None),
        ("[a-b-c]", "a", None),
        ("[", "a", None),
        ("[^", "a", None),
        ("[^bc", "a", None),
        ("a[", "ab", None),
        ("a\\", "a", None),
        ("[!a]", "!", True),
        ("[[]x", "[x", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a\\/b", "a/b", True),
        ("*.t*t", "a.b.text", True),
        ("a{b,c}", "a{b,c}", True),
        ("a.c", "abc", False),
        ("a\nb*", "a\nbc\n", True),
    ],
)
def test_names_match_as_in_go(pattern: str, name: str, *, expected: bool | None) -> None:
    """None is a pattern that is not written as one."""
    if expected is None:
        with pytest.raises(ValueError, match=r"is no pattern; write \[\[\] for a bracket"):
            globs.match(pattern, name)
    else:
        assert globs.match(pattern, name) is expected


@settings(max_examples=400)
@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_one_component_is_what_a_shell_takes_it_for(pattern: str, name: str) -> None:
    """The standard library's matcher is the judge, where there is no slash."""
    assert globs.match(pattern, name) is fnmatch.fnmatchcase(name, pattern)


def _plainly(pattern: str, name: str) -> bool:
    """Docker's own expression for a pattern with `**`, character by character, however long it takes."""
    expression, position = "", 0
    while position < len(pattern):
        if pattern.startswith("**", position):
            position += 3 if pattern.startswith("**/", position) else 2
            expression += ".*" if position >= len(pattern) else "(.*/)?"
            continue
        letter = pattern[position]
        expression += {"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter))
        position += 1
    return re.fullmatch(expression, name) is not None


_DEEP = st.lists(st.sampled_from(["a", "b", "*", "?", "**", "/", "a*", "**/", "/**/"]), max_size=6).map("".join)


@settings(max_examples=500, deadline=None)
@example("a**/*/**", "a")
@example("a**/*b", "abb")
@example("a**/**/*b", "abb")
@example("a**/*a**/*", "aba/a")
@given(_DEEP, st.lists(st.sampled_from(["a", "b", "ab", "ba", "abb"]), min_size=1, max_size=4).map("/".join))
def test_two_stars_are_what_docker_takes_them_for(pattern: str, name: str) -> None:
    """Judged by its own translation; empty components never come this far, and three stars are two."""
    clean = "/".join(part for part in pattern.split("/") if part)
    pattern = re.sub(r"\*{3,}", "**", clean)
    assert any(way.matches(name) for way in globs.deep(pattern)) is _plainly(pattern, name)


def test_a_name_with_a_space_is_one_pattern() -> None:
    patterns = ignore.parse(b"a b\n")
    assert [path for path in ("a b", "a", "b") if patterns.excludes(path)] == ["a b"]


IGNORES = [
    # text, then paths that are left out, then paths that stay
    ("", "", "a a/b"),
    ("# a\n", "", "a # "),
    (" a \n", "a a/b", "b ab"),
    ("#a", "", "#a a"),
    ("\\#a", "#a", "a"),
    ("/a/", "a a/b", "b/a"),
    ("./a/../b", "b b/c", "a"),
    (".\n/\n", "", "a"),
    ("*", "a a/b .x", ""),
    ("*.o", "x.o x.o/y", "d/x.o x.c"),
    ("*/*.o", "d/x.o", "x.o e/d/x.o"),
    ("**/*.o", "x.o d/x.o e/d/x.o", "x.c"),
    ("**", "a a/b", ""),
    ("a/**", "a/b a/b/c", "a b"),
    ("**/a", "a b/a c/b/a/d", "ab"),
    ("a/**/b", "a/b a/x/b a/x/y/b/z", "a/x b"),
    ("**/a/**/b", "a/b x/a/y/b", "x/a"),
    ("**a", "a x/a", "ba x/ba"),
    ("a**", "a ab ab/c a/b", "b/a"),
    ("a?", "ab ab/c", "a abc a/b"),
    ("[a-c]", "a c", "d"),
    ("a\n!a/b", "a a/c", "a/b a/b/c"),
    ("!a/b\na", "a a/b a/c", "b"),
    ("*\n!a", "b b/a", "a a/b"),
    ("*.md\n!README*.md\nREADME-secret.md", "a.md README-secret.md", "README.md README-x.md"),
    ("*.md\nREADME-secret.md\n!README*.md", "a.md", "README-secret.md"),
    ("a\n! a/b ", "a/c", "a/b"),
    ("\ufeffa\r\nb\r\n", "a b", "c"),
    ("../a", "", "a"),
]


@pytest.mark.parametrize(("text", "out", "stay"), IGNORES)
def test_which_paths_are_left_out(text: str, out: str, stay: str) -> None:
    patterns = ignore.parse(text.encode())
    assert [path for path in out.split() if not patterns.excludes(path)] == []
    assert [path for path in stay.split() if patterns.excludes(path)] == []


def test_names_that_are_no_utf8_are_matched_as_the_file_system_gives_them() -> None:
    patterns = ignore.parse(b"\xff*")
    assert patterns.excludes(b"\xffx".decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("a", "a", False),
        ("a\n!a/b", "a", True),
        ("a\n!a/b", "a/b", True),
        ("a\n!a/b", "a/c", False),
        ("a\n!a/b/c", "a/b", True),
        ("a\n!**/c", "a/x", True),
        ("a\n!a/*/c", "a/x", True),
        ("a\n!a/*/c", "a/x/y", False),
        ("!a/b\na", "a", False),
        ("*\n!a", "b", False),
        ("a", "b", True),
        ("a\na/b", "a", False),
    ],
)
def test_folders_are_looked_into_only_where_something_may_be(text: str, folder: str, *, expected: bool) -> None:
    assert ignore.parse(text.encode()).may_include_below(folder) is expected


_LINES = st.lists(st.sampled_from(["a", "b", "*", "a/b", "*/b", "**/a", "a/**", "!a", "!a/b", "!**/b", "!*/a", "!b/*"]))
_PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=4)


@settings(max_examples=300)
@given(_LINES, _PATHS)
def test_what_stays_is_never_in_a_folder_that_nobody_looks_into(written: list[str], path: list[str]) -> None:
    patterns = ignore.parse("\n".join(written).encode())
    if not patterns.excludes("/".join(path)):
        above = ["/".join(path[:count]) for count in range(1, len(path))]
        assert [folder for folder in above if not patterns.may_include_below(folder)] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a\n!\n", ".dockerignore:2: '!' names nothing; write a pattern after it"),
        (b"a\n\n[x\n", ".dockerignore:3: [x: '[x' is no pattern"),
        (b"a" * 5000, ".dockerignore:1: "),
        (b"a**b**c**d**e", "more than 3 times ** between letters; write it between slashes"),
        (b"a\n" * 10_001, ".dockerignore: more than 10000 patterns"),
        (b"#" * (ignore.MAX_SIZE_BYTES + 1), ".dockerignore: larger than"),
    ],
)
def test_what_is_no_pattern_is_told_with_its_line(text: bytes, complaint: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        ignore.parse(text)
    assert complaint in str(raised.value)


def test_the_file_beside_the_dockerfile_comes_first() -> None:
    assert ignore.names("docker/web.Dockerfile") == ("docker/web.Dockerfile.dockerignore", ".dockerignore")


def test_patterns_of_flags_say_where_they_stand() -> None:
    assert ignore.patterns(("*.md", "x/**"), place="Dockerfile:3").excludes("x/y")
    with pytest.raises(errors.InvalidDockerfile, match=r"Dockerfile:3: \[: "):
        ignore.patterns(("[",), place="Dockerfile:3")


@pytest.mark.parametrize("pattern", ["*a" * 2000 + "b", "**/a/" * 800 + "b", "?*" * 2000 + "b", "a*/" * 1300 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    """Expressions that go back on every star need longer than the universe for these."""
    start = time.process_time()
    ways = globs.deep(pattern[: globs.MAX_PATTERN])
    found = [way.matches(name) for way in ways for name in ("a" * 4000, "a/" * 2000 + "c", "aa/" * 1300 + "c")]
    assert not any(found)
    assert time.process_time() - start < 5
