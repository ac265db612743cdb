"""Texts that a manifest may write as the path of a file: fields with the rule `file`.

Reading stays free of files: whoever reads manifests passes a `Load`, which knows where the manifest came from. An
object holds the text and never a path, so it means the same on every machine.
"""

from collections.abc import Callable
from typing import TypeAlias

Load: TypeAlias = Callable[[str, str], str]
"""The text of a file, given the name of the manifest's source and the path as it is written. Raises Unloadable."""


class Unloadable(ValueError):  # noqa: N818 - the file is
    """The file cannot be put in the place of its path."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def is_path(text: str) -> bool:
    """`./profile.json` is, `default` and what a file holds are not: several lines, or one that begins with `{`."""
    return "\n" not in text and not text.lstrip().startswith("{") and ("/" in text or "." in text)


def nowhere(source: str, path: str) -> str:
    """A Load where there are no files."""
    raise Unloadable(f"the file {path} cannot be read from {source} here", "write what it holds instead of its path")
