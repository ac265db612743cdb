"""The pages about several control planes and about backups name commands that exist, with options that they have; and
what pages show is compared as it should be."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from controlplane import arguments, member
from controlplane.trust import backup, restoring
from deploy.host import outside, restore
from orchctl.cli import orchctl
from tests.support import pages

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("high-availability.md", "backup.md")
BLOCK = re.compile(r"(?:^    .+\n)+", re.MULTILINE)


def commands() -> Sequence[Sequence[str]]:
    """Each as its words; a line that ends in a backslash goes on."""
    found = []
    for page in PAGES:
        text = (DOCS / page).read_text()
        inline = re.findall(r"`(orchctl [^`]+)`", text)
        blocks = "".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
        found += [shlex.split(line.partition("…")[0]) for line in (*inline, *blocks)]
    return [words for words in found if words and words[0].startswith("orch")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_pages_can_be_typed(words: Sequence[str], tmp_path: Path) -> None:
    """What is left out there (`…`) is what another line says."""
    match words[0]:
        case "orch-controlplane":
            assert arguments.parser().parse_args(words[1:]).name == "cp1"
        case "orch-etcd":
            assert member.parser().parse_args(words[1:]).trust
        case "orch-agent":
            assert words[1] == "--server"
        case _:
            _parse(list(words[1:]), tmp_path)


def _parse(words: list[str], folder: Path) -> None:
    """Down the groups of commands; an unknown option, or one that is missing, raises."""
    group: click.Command = orchctl
    while isinstance(group, click.Group) and words:
        found = group.get_command(click.Context(group), words[0])
        assert found is not None, words
        group, words = found, words[1:]
    files = [str(_file(folder, word)) if word.endswith(".backup") and "/" not in word else word for word in words]
    try:
        group.make_context("orchctl", files)
    except click.MissingParameter:  # a command that is only named
        assert not words, "the page leaves something out"


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    path.touch()
    return path


def test_there_are_some() -> None:
    """The pattern above finds them."""
    assert len(commands()) > 15


def test_the_refusals_of_the_page_are_those_of_the_program() -> None:
    """Word for word, as far as they are said there."""
    page = (DOCS / "backup.md").read_text()
    said = re.findall(r"^\| [^`|]+ \| [^`|]*`(.+?)`(?: \||$)", page.partition("## What is refused")[2], re.MULTILINE)
    assert len(said) == 9
    sources = [Path(module.__file__ or "").read_text() for module in (backup, restoring)]
    sources += [Path(module.__file__).read_text() for module in (restore, outside)]
    sources += [(Path(backup.__file__).parent / name).read_text() for name in ("founding.py", "restore.py")]
    text = re.sub(r'"\s*\n\s*f?"', "", "".join(sources))
    for message in said:
        for part in filter(None, re.split("…|: ", message)):
            assert part.strip(" (") in text, part


def test_what_a_page_shows_is_compared_by_kind_and_nothing_else_is_let_pass() -> None:
    """Names' ends, times and addresses are those of a run; a word, a number of tasks or a line is not."""
    shown = "NAME             NODE   AGE   ADDRESS\nweb-1-k7x2m9q4   n1     3s    10.0.0.1\n"
    assert pages.is_seen(shown, "NAME NODE AGE ADDRESS\nweb-1-abcdefgh n1 1m2s 10.9.8.7\n")
    for other in ("web-2-abcdefgh n1 3s 10.0.0.1", "web-1-abcdefgh n2 3s 10.0.0.1", "web-1-abcdefgh n1 3s -"):
        assert not pages.is_seen(shown, f"NAME NODE AGE ADDRESS\n{other}\n")
    assert not pages.is_seen(shown, f"{shown}web-2-abcdefgh n1 3s 10.0.0.1\n")
    assert pages.is_seen("…\nb … d\n…", "a\nb c d\ne\nf")
    assert not pages.is_seen("b … d", "a\nb c d")
    assert not pages.is_seen("b …", "b c\nd"), "more lines are a line of their own"
