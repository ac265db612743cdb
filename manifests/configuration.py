"""The files in /etc/orch: what a program can be told on its command line, written down, a key an option.

Three rules. The program's own parser is the only list of keys, so that none can be missing here. A key is the long name
of an option without its dashes, and means what the option means. And what stands in the file comes before what was said
on the command line, where the later one wins: a list there takes the place of the file's.
"""

import argparse
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from manifests import documents, suggest
from manifests.documents import Source
from manifests.mistakes import Collector, Mistake, Place
from manifests.nodes import Entry, Items, Node, Scalar, what
from manifests.nodes import Mapping as Tree

OPTION = "--config"
_WIDTH = 100
_TRUE, _FALSE = "true", "false"


def arguments(parser: argparse.ArgumentParser, source: Source, given: Sequence[str]) -> list[str]:
    """What the program is to be called with instead of `given`. Raises InvalidManifest with all that is wrong."""
    mistakes, known = Collector(), options(parser)
    said = {word.partition("=")[0].removeprefix("--") for word in given if word.startswith("--")}
    found = _read(parser, source, mistakes)
    for key, action in known.items():
        if action.required and key not in {*found, *said}:
            mistakes.add(_missing(source, key, action))
    mistakes.raise_if_any([source.name])
    words = [word for key, texts in found.items() if key not in said for word in _words(key, texts, known[key])]
    return [*words, *given]


def values(parser: argparse.ArgumentParser, source: Source) -> dict[str, list[str]]:
    """What stands in a file, whether or not it is all that the program needs. Raises InvalidManifest."""
    mistakes = Collector()
    found = _read(parser, source, mistakes)
    mistakes.raise_if_any([source.name])
    return found


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Everything that may be a key."""
    known = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no other list of them
        name = next((one for one in action.option_strings if one.startswith("--")), "")
        if name and name not in {"--help", OPTION}:
            known[name.removeprefix("--")] = action
    return known


def written(parser: argparse.ArgumentParser, said: Mapping[str, Sequence[str]], opening: str) -> str:
    """The text of a file with these values: each key that there is, under what it means; the others as comments.

    `opening` are the first lines, what the file is for.
    """
    parts = ["".join(f"# {line}\n" for line in textwrap.wrap(opening, _WIDTH))]
    for key, action in options(parser).items():
        lines = [f"# {line}" for line in textwrap.wrap(_help(action), _WIDTH)]
        parts.append("\n".join([*lines, *_lines(key, action, said.get(key, ()))]) + "\n")
    return "\n".join(parts)


# Reading ----------------------------------------------------------------------------------------------------------


def _read(parser: argparse.ArgumentParser, source: Source, mistakes: Collector) -> dict[str, list[str]]:
    return {key: _values(key, entry, action, mistakes) for key, entry, action in _entries(parser, source, mistakes)}


def _entries(
    parser: argparse.ArgumentParser, source: Source, mistakes: Collector
) -> Iterator[tuple[str, Entry, argparse.Action]]:
    """The keys of the file that are options."""
    known = options(parser)
    for number, document in enumerate(documents.documents(source, mistakes)):
        if number or not isinstance(document, Tree):
            text = "a second document" if number else f"{what(document)} instead of keys with values"
            mistakes.add(Mistake(place=document.place, message=text, hint="write one key a line, such as `name: n1`"))
            return
        for key, entry in document.entries.items():
            if key in known:
                yield key, entry, known[key]
                continue
            hint = suggest.did_you_mean(key, known) or f"{parser.prog} --help lists them"
            mistakes.add(Mistake(place=entry.place, path=key, message="unknown key", hint=hint))


def _values(key: str, entry: Entry, action: argparse.Action, mistakes: Collector) -> list[str]:
    """The texts of a key, each of which the option takes."""
    nodes: Sequence[Node] = entry.value.values if isinstance(entry.value, Items) else [entry.value]
    if isinstance(entry.value, Items) and not _is_list(action):
        mistakes.add(Mistake(place=entry.place, path=key, message="a list instead of one value", hint="give one"))
        return []
    texts = []
    for node in nodes:
        if not isinstance(node, Scalar) or node.is_null:
            hint = f"write a value, or leave out {key}"
            mistakes.add(Mistake(place=entry.place, path=key, message=f"{what(node)} instead of a value", hint=hint))
        elif problem := _problem(action, node.text):
            mistakes.add(Mistake(place=node.place, path=key, message=problem, hint=_help(action)))
        else:
            texts.append(node.text)
    return texts


def _problem(action: argparse.Action, text: str) -> str:
    """Why the option does not take it; empty when it does."""
    if _is_flag(action):
        return "" if text in {_TRUE, _FALSE} else f"{text!r} is neither {_TRUE} nor {_FALSE}"
    if action.choices is not None and text not in action.choices:
        return f"{text!r} is not {suggest.one_of(action.choices)}"
    if callable(action.type):
        try:
            action.type(text)
        except (argparse.ArgumentTypeError, ValueError) as error:
            return f"{text!r} is not a whole number" if action.type is int else str(error)
    return ""


def _words(key: str, texts: Sequence[str], action: argparse.Action) -> list[str]:
    if _is_flag(action):
        return [f"--{key}"] if list(texts) == [_TRUE] else []
    return [f"--{key}={value}" for value in texts]


def _missing(source: Source, key: str, action: argparse.Action) -> Mistake:
    place = Place(source=source.name, line=1, column=1)
    return Mistake(place=place, message=f"{key} is missing", hint=_help(action))


# Writing ----------------------------------------------------------------------------------------------------------


def _lines(key: str, action: argparse.Action, texts: Sequence[str]) -> list[str]:
    if not texts:
        return [f"#{key}:{_shown(action)}"]
    if _is_list(action):
        return [f"{key}:", *(f"  - {_quoted(text)}" for text in texts)]
    assert len(texts) == 1, f"{key} has one value"
    return [f"{key}: {_quoted(texts[0])}"]


def _shown(action: argparse.Action) -> str:
    """What a key without a value shows: its default, or how it is written."""
    default = action.default
    if _is_flag(action):
        return f" {_TRUE if default else _FALSE}"
    if isinstance(default, (str, int)) and default != "":
        return f" {default}"
    return f" [{action.metavar or key_word(action)}]" if _is_list(action) else f" {action.metavar or key_word(action)}"


def key_word(action: argparse.Action) -> str:
    """What stands for a value in its description."""
    return action.dest.upper()


def _quoted(text: str) -> str:
    """As YAML reads it back; in quotes, whatever it is, so that nothing in it has a meaning."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _help(action: argparse.Action) -> str:
    """One sentence of the option's own."""
    return (action.help or "") % {"default": action.default, "metavar": action.metavar}


def _is_list(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)  # noqa: SLF001 - its class is the only sign


def _is_flag(action: argparse.Action) -> bool:
    return action.nargs == 0
