"""Logical lines: directives, comments, continuations and heredocs are read as Docker reads them."""

from __future__ import annotations

import pytest

from images import errors
from images.build import dockerfile, heredocs, instructions, lines


def _rests(text: str) -> list[str]:
    return [f"{line.keyword} {line.rest}".rstrip() for line in lines.read(text.encode(), name="Dockerfile").lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", ["FROM a"]),
        ("\n  \n  from\ta \n", ["FROM a"]),
        ("# c\nFROM a\n   # d\nRUN b # no comment", ["FROM a", "RUN b # no comment"]),
        ("RUN a \\\n  b", ["RUN a   b"]),
        ("RUN a \\  \t\n  b", ["RUN a   b"]),
        ("RUN a\\\nb", ["RUN ab"]),
        ("RUN a \\\n# c\n  # d\n b", ["RUN a  b"]),
        ("RUN a \\\n\n  \n b\nUSER c", ["RUN a  b", "USER c"]),
        ("RUN a \\", ["RUN a"]),
        ("RUN a \\\n\n# c", ["RUN a"]),
        ("RUN a \\\\\nUSER b", ["RUN a \\\\", "USER b"]),
        ("\\\nRUN a", ["RUN a"]),
        ("\\", []),
        ("FR\\\nOM a", ["FROM a"]),
        ("RUN a\r\nUSER b\r\n", ["RUN a", "USER b"]),
        ("RUN a \\\r\n b\r\n", ["RUN a  b"]),
        ("\ufeffFROM a", ["FROM a"]),
        ("RUN", ["RUN"]),
    ],
)
def test_lines_are_joined_and_comments_dropped(text: str, expected: list[str]) -> None:
    assert _rests(text) == expected


def test_places_are_those_of_the_first_line() -> None:
    found = lines.read(b"# c\n\nFROM a\nRUN b \\\n c\n\nUSER d", name="D").lines
    assert [str(line.place) for line in found] == ["D:3", "D:4", "D:7"]


def test_an_empty_line_inside_an_instruction_is_told_once() -> None:
    """Docker means to make it a mistake some day."""
    found = dockerfile.parse(b"FROM a\nRUN b \\\n\n\n c\n")
    assert found.warnings == ("Dockerfile:2: an empty line inside the instruction is passed over; make it a comment",)


@pytest.mark.parametrize(
    ("text", "escape", "syntax", "check"),
    [
        ("FROM a", "\\", "", ""),
        ("# escape=`\nFROM a", "`", "", ""),
        ("#escape = `\nFROM a", "`", "", ""),
        ("# ESCAPE=\\\nFROM a", "\\", "", ""),
        ("# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all\nFROM a", "`", "docker/dockerfile:1", "skip=all"),
        ("\n# escape=`\nFROM a", "\\", "", ""),
        ("# a comment\n# escape=`\nFROM a", "\\", "", ""),
        ("# other=x\n# escape=`\nFROM a", "\\", "", ""),
        ("FROM a\n# escape=`\n", "\\", "", ""),
        ("\ufeff# escape=`\nFROM a", "`", "", ""),
    ],
)
def test_directives_count_before_everything_else(text: str, escape: str, syntax: str, check: str) -> None:
    found = dockerfile.parse(text.encode())
    assert (found.escape, found.syntax, found.check) == (escape, syntax, check)


def test_another_escape_character_leaves_backslashes_alone() -> None:
    found = dockerfile.parse(b"# escape=`\nFROM a\nENV p=C:\\x\nCOPY a `\n b\\\nUSER u")
    assert [type(each).__name__ for each in found.stages[0].instructions] == ["Env", "Copy", "User"]


def _openings(line: str) -> list[tuple[str, bool, bool]]:
    return [(found.name, found.expands, found.strips_tabs) for found in heredocs.openings(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("RUN <<EOF", [("EOF", True, False)]),
        ("RUN <<-EOF", [("EOF", True, True)]),
        ("RUN <<'EOF'", [("EOF", False, False)]),
        ('RUN <<"E F"', [("E F", False, False)]),
        ("RUN <<\\EOF", [("EOF", False, False)]),
        ("RUN 3<<EOF", [("EOF", True, False)]),
        ("RUN cat <<EOF > /x", [("EOF", True, False)]),
        ("RUN cat <<EOF>/x", [("EOF", True, False)]),
        ("RUN cat <<EOF|sort", [("EOF", True, False)]),
        ("RUN x=$(cat <<EOF)", [("EOF", True, False)]),
        ("RUN cat << EOF", [("EOF", True, False)]),
        ("RUN cat <<A - <<-'B'", [("A", True, False), ("B", False, True)]),
        ("COPY <<a.txt <<b.txt /x/", [("a.txt", True, False), ("b.txt", True, False)]),
        ("RUN echo '<<EOF' \"<<EOF\" \\<<EOF", []),
        ("RUN cat <<< word", []),
        ("RUN cat <<<word", []),
        ("RUN echo $((1 << 2)) $(( 1 << EOF ))", []),
        ("RUN expr 1 << 2", []),
        ("RUN a<<EOF", []),
        ('RUN "a"<<EOF', []),
        ("RUN \\a<<EOF", []),
        ("RUN (<<EOF cat)", []),
        ("RUN echo 'a' <<'", []),
        ("RUN <<", []),
    ],
)
def test_heredocs_are_found_where_they_begin_a_word(line: str, expected: list[tuple[str, bool, bool]]) -> None:
    assert _openings(line) == expected


def _bodies(text: str) -> list[tuple[str, str]]:
    found = dockerfile.parse(f"FROM a\n{text}".encode()).stages[0].instructions
    return [(heredoc.name, heredoc.content) for each in found for heredoc in _of(each)]


def _of(instruction: instructions.Instruction) -> tuple[instructions.Heredoc, ...]:
    match instruction:
        case instructions.Run():
            return instruction.command.heredocs
        case instructions.Copy():
            return instruction.heredocs
        case _:
            return ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN <<EOF\na\nEOF", [("EOF", "a\n")]),
        ("RUN <<EOF\nEOF", [("EOF", "")]),
        ("RUN <<EOF\n# kept \\\n\n  a  \nEOF\nUSER b", [("EOF", "# kept \\\n\n  a  \n")]),
        ("RUN <<EOF\n EOF\nEOFX\nEOF", [("EOF", " EOF\nEOFX\n")]),
        ("RUN <<-EOF\n\ta\n\t\tb\n\tEOF", [("EOF", "a\nb\n")]),
        ("COPY <<A <<B /x/\n1\nA\n2\nB", [("A", "1\n"), ("B", "2\n")]),
        ("RUN <<A cat - <<A\n1\nA\n2\nA", [("A", "1\n"), ("A", "2\n")]),
        ("RUN cat \\\n <<EOF\na\nEOF", [("EOF", "a\n")]),
        ("RUN <<EOF\r\na\r\nEOF\r\n", [("EOF", "a\n")]),
        ("ENV a=<<EOF\nENV b=c", []),
    ],
)
def test_bodies_are_taken_as_they_stand(text: str, expected: list[tuple[str, str]]) -> None:
    assert _bodies(text) == expected


def test_the_command_keeps_its_place_for_the_body() -> None:
    """A shell reads `cat <<EOF >/x` itself; only `<<EOF` alone is a script."""
    beside, alone = dockerfile.parse(b"FROM a\nRUN cat <<EOF >/x\na\nEOF\nRUN <<EOF\nb\nEOF").stages[0].instructions
    assert isinstance(beside, instructions.Run)
    assert isinstance(alone, instructions.Run)
    assert (beside.command.line, beside.command.script) == ("cat <<EOF >/x", None)
    assert alone.command.script == instructions.Heredoc(name="EOF", content="b\n", expands=True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"# escape=x\nFROM a", "Dockerfile:1: escape=x: it may be \\ or `"),
        (b"# escape=`\n# escape=`\nFROM a", "Dockerfile:2: a second directive escape; leave one"),
        (b"FROM a\nRUN <<EOF\nb\n EOF", "Dockerfile:2: RUN: <<EOF has no end; write a line with its name alone"),
        (b"FROM a\n\nUSER \xff", "Dockerfile:3: USER: bytes that are not UTF-8; save the file as UTF-8"),
        (b"FROM a\nUSER b\0", "Dockerfile:2: USER: a NUL byte; remove it"),
        (b"FROM a\nRUN <<EOF\n\xff\nEOF", "Dockerfile:2: RUN: bytes that are not UTF-8; save the file as UTF-8"),
        (b"#" * (lines.MAX_SIZE_BYTES + 1), f"Dockerfile: larger than {lines.MAX_SIZE_BYTES} bytes; move its scripts"),
        (b"USER a\n" * 10_001, "Dockerfile:10001: USER: more than 10000 instructions; build it in several images"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: bytes, complaint: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        lines.read(text, name="Dockerfile")
    assert str(raised.value).startswith(complaint)


def test_comments_may_hold_any_bytes() -> None:
    assert _rests("FROM a") == [line.keyword + " a" for line in lines.read(b"# \xe9t\xe9\nFROM a", name="D").lines]
