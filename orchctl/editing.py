"""An object in a person's editor: what is opened, and what came of it. The shell around it is `verbs/edit`.

The rule: nothing that was typed is lost. What is refused is opened again with the reason above it; what is given up
stays in a file that is named.
"""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from manifests import reader, wish
from manifests.documents import Source
from orchctl import errors, words
from protos import kinds

HEAD = (
    "Change it, save it and leave the editor. Lines that begin with # say nothing.",
    "An empty file, or one without a change, changes nothing.",
)
NAME = "the edited text"


class Overtaken(Exception):  # noqa: N818 - named after what happened
    """Somebody else has changed the object while it was edited. `fresh` is what it is now."""

    def __init__(self, fresh: kinds.StoredObject) -> None:
        super().__init__(words.short(fresh))
        self.fresh = fresh


class Draft:
    """A file that a person edits. It is removed in the end, unless something in it would be lost."""

    def __init__(self, value: kinds.StoredObject) -> None:
        self.text = wish.text(value)
        self._opened = _without_remarks(self.text)
        handle, name = tempfile.mkstemp(prefix=f"orchctl-{value.meta.name}-", suffix=".yaml")
        os.close(handle)
        self.path = Path(name)

    def edit(self, remarks: Sequence[str]) -> str:
        """Opens the text with remarks above it; what the person has made of it."""
        before = "".join(f"# {line}".rstrip() + "\n" for line in (*HEAD, *remarks)) + self.text
        self.path.write_text(before)
        try:
            code = _open(self.path)
        except errors.InvalidInput as error:
            raise self._ended(error.message, error) from error
        after = self.path.read_text()
        if code:
            self.text = after
            why = f"the editor ended with exit code {code}"
            raise self._ended(why, errors.NotDone(f"nothing was changed: {why}"))
        if remarks and after == before:
            raise self.given_up("it was refused, and not changed since")
        self.text = _without_remarks(after)
        return self.text

    def _ended(self, why: str, error: errors.OrchctlError) -> errors.OrchctlError:
        """The end of it through the editor's fault: the text stays if something was typed, now or before."""
        if _without_remarks(self.text) != self._opened:
            return self.given_up(why)
        self.remove()
        return error

    def given_up(self, why: str) -> errors.NotDone:
        """The end of it; the text stays."""
        return errors.NotDone(f"nothing was changed: {why}", hint=f"your text is in {self.path}")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def parse(text: str, original: kinds.StoredObject) -> kinds.StoredObject:
    """The object that the text describes, which has to be the one that was opened. InvalidInput."""
    try:
        found = reader.read([Source(name=NAME, text=text.encode())], namespace=original.meta.namespace).objects
    except reader.InvalidManifest as error:
        raise errors.InvalidInput(
            "it cannot be applied", details=[str(mistake) for mistake in error.mistakes]
        ) from error
    if len(found) != 1:
        raise errors.InvalidInput(f"{len(found)} objects, and one was opened")
    if _identity(found[0]) != _identity(original):
        raise errors.InvalidInput(
            f"it is {words.short(found[0])} now; kind, name and namespace of {words.short(original)} have to stay"
        )
    return found[0]


def remarks_of(error: errors.OrchctlError) -> list[str]:
    """What is written above the text when it is opened again."""
    lines = [f"It was refused: {error.message}", *error.details, *([error.hint] if error.hint else [])]
    return ["", *(part for line in lines for part in line.splitlines())]


def remarks_of_change(before: kinds.StoredObject, now: kinds.StoredObject) -> list[str]:
    """What somebody else has changed in the meantime."""
    lines = wish.difference(before, now, words.short(now))
    return [
        "",
        "Somebody else has changed it since you opened it. Saving this puts your text over their change:",
        *lines,
    ]


def _identity(value: kinds.StoredObject) -> tuple[str, str, str]:
    return kinds.of(value).name, value.meta.namespace, value.meta.name


def _without_remarks(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _open(path: Path) -> int:
    """The exit code of the person's editor. InvalidInput when it cannot be started."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        return subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise errors.InvalidInput(f"cannot start the editor {editor!r}: {error}", hint="set EDITOR") from error
