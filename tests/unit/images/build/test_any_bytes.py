"""Whatever the bytes are: instructions, or one clear sentence, and in bounded time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import errors
from images.build import dockerfile, expansion, graph, ignore, instructions, lines, scope

# Words of the language put together at random find more than letters at random do.
_WORDS = st.sampled_from(
    [
        *(f"{keyword} " for keyword in sorted(dockerfile.KEYWORDS)),
        *(
            "--from=0 ",
            "--mount=type=cache,target=/x ",
            "--chmod=u+x ",
            "--",
            "=",
            "a",
            "b ",
            "/",
            '["a", "b"]',
            "[",
            "]",
        ),
        *(
            "\n",
            "\n",
            "\n",
            "\\\n",
            "#",
            "<<EOF",
            "<<-'E F'",
            "EOF\n",
            " ",
            "\t",
            "'",
            '"',
            "\\",
            "`",
            "$x",
            "${x:-",
            "}",
        ),
        *(
            "# escape=`\n",
            "FROM a\n",
            "FROM a AS b\n",
            "scratch",
            "80/tcp ",
            "NONE",
            "CMD ",
            "é",
            "\0",
            "\ud800",
            "\r\n",
        ),
    ]
)
_FILES = st.lists(_WORDS, max_size=40).map(lambda found: "".join(found).encode(errors="surrogatepass"))


def _carry_out(text: bytes) -> None:
    """Everything that is done with a file before something is built."""
    parsed = dockerfile.parse(text)
    top = scope.whole_file(parsed, build_args={"x": "1"}, platform={})
    for each in graph.needed(parsed, "", top.globals):
        for instruction in each.stage.instructions:
            expansion.expanded(instruction, top.stage({"x": "a b"}).variables, parsed.escape)


def _told(text: bytes) -> str:
    try:
        _carry_out(text)
    except errors.InvalidDockerfile as error:
        return str(error)
    return ""


@settings(max_examples=500, deadline=None)
@given(st.one_of(_FILES, _FILES.map(lambda found: b"FROM a\n" + found), st.binary(max_size=200)))
def test_any_bytes_are_read_or_refused_in_one_line(text: bytes) -> None:
    told = _told(text)
    assert not told or told.startswith("Dockerfile:")
    assert "\n" not in told
    assert told.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(alphabet="a*?[]!^-/\\#.\n ", max_size=40).map(str.encode)))
def test_any_dockerignore_is_read_or_refused(text: bytes) -> None:
    told = ""
    try:
        patterns = ignore.parse(text)
    except errors.InvalidDockerfile as error:
        told = str(error)
        patterns = ignore.Patterns()
    assert not told or told.startswith(".dockerignore:")
    # What leaves out a folder leaves out what is in it, unless something in it is named again.
    if patterns.excludes("a") and not patterns.may_include_below("a"):
        assert patterns.excludes("a/b")


@settings(max_examples=300, deadline=None)
@given(_FILES)
def test_what_was_read_is_read_again(text: bytes) -> None:
    """An instruction's own text, which ONBUILD stores and errors show, says the same as the file did."""
    if _refused(text):
        return
    parsed = dockerfile.parse(b"FROM a\n" + text)
    for stage in parsed.stages:
        for each in stage.instructions:
            assert _same(each, _again(each, parsed.escape))


def _refused(text: bytes) -> bool:
    try:
        dockerfile.parse(b"FROM a\n" + text)
    except errors.InvalidDockerfile:
        return True
    return False


def _again(instruction: instructions.Instruction, escape: str) -> instructions.Instruction:
    written = f"# escape={escape}\nFROM a\n{instruction.place.text}\n".encode()
    (found,) = dockerfile.parse(written, name=instruction.place.file).stages[0].instructions
    return found


def _same(one: instructions.Instruction, other: instructions.Instruction) -> bool:
    """Equal but for the line that it stands on."""
    texts = [repr(each).replace(f"line={each.place.line}, text=", "text=") for each in (one, other)]
    return texts[0] == texts[1]


BIG = [
    b"\n",
    b"a\\\n",
    b"\\\n",
    b"a\\\n\n#\n",
    b'"\\"',
    b"'",
    b'"',
    b"<<",
    b"<<A ",
    b"(( ",
    b"((a(b)",
    b"[",
    b"--mount=target=/x ",
    b"--\\",
    b"\\",
    b"$a",
    b"${a:-",
    b"a=b ",
    b",",
]
BEFORE = [
    b"FROM x\nRUN ",
    b"FROM x\nENV a=",
    b"FROM x\nCOPY ",
    b"FROM x\nHEALTHCHECK CMD [",
    b"# escape=",
    b"FROM x\n",
    b"",
]


@pytest.mark.parametrize("piece", BIG)
def test_a_lot_of_anything_is_read_in_little_time(piece: bytes) -> None:
    """Seven beginnings of a quarter of a megabyte each; ten times what it takes, so that only the square of it fails.

    The time is that of the processor, which does not grow with what else the machine does.
    """
    start = time.process_time()
    for before in BEFORE:
        _told(before + piece * ((lines.MAX_SIZE_BYTES // 4) // len(piece)))
    assert time.process_time() - start < 7


def test_a_megabyte_takes_less_than_a_second() -> None:
    """Of instructions as people write them; a quarter of the bound is what it takes."""
    step = (
        b"RUN --mount=type=cache,target=/c apt-get install -y \\\n"
        + b"    package-name=1.2.3 \\\n" * 30
        + b"    last\n"
    )
    text = b"FROM base\n" + step * (lines.MAX_SIZE_BYTES // len(step) - 1)
    start = time.process_time()
    parsed = dockerfile.parse(text)
    taken_s = time.process_time() - start
    assert len(parsed.stages[0].instructions) == text.count(b"RUN")
    assert taken_s < 1
