"""A program that reads its options from a file: it becomes itself, with what the file says on its command line.

The rule: whatever reading took is gone afterwards. What runs for months holds no reader of YAML, and its effective
options stand in the list of processes.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

OPTION = "--config"
WRONG = 2
"""The exit code for wrong options, as argparse has it."""

Translate = Callable[[str, bytes, Sequence[str]], Sequence[str]]
"""A file's name, its content and the other arguments → all arguments. Raises ValueError with what is wrong."""


def configured(program: str, arguments: Sequence[str], translate: Translate) -> None:
    """Returns when no file is named. Ends with exit code 2 when it cannot be used, with a line for each mistake."""
    path, others = _split(arguments)
    if path is None:
        return
    try:
        words = translate(path, Path(path).read_bytes(), others)
    except OSError as error:
        _end(program, f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        _end(program, str(error))
    own = sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *own, *words])


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file that is named last, and the other arguments."""
    path, others, words = None, [], iter(arguments)
    for word in words:
        name, sign, value = word.partition("=")
        if name == OPTION:
            path = value if sign else next(words, "")
        else:
            others.append(word)
    return path, others


def _end(program: str, text: str) -> NoReturn:
    sys.stderr.write("".join(f"{program}: {line}\n" for line in text.splitlines()))
    sys.exit(WRONG)
