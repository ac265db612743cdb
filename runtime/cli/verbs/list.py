"""`orchrun list`: every container below the state folder, the library's and the command's alike."""

import contextlib
import json
import os
import sys
from typing import Any

from runtime import errors, state
from runtime.cli import describing
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (
    Flag("--format", "-f", value="FORMAT", help="table or json"),
    Flag("--quiet", "-q", help="the ids only"),
)
ARGUMENTS = "[flags]"
WORDS_END_FLAGS = False

_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def run(context: Context, given: Options) -> int:
    """Print them, by id."""
    given.take()
    style = given.text("--format", "table")
    if style not in {"table", "json"}:
        raise errors.InvalidSpec(f"--format: {style!r} is none; use table or json")
    found = _described(os.path.abspath(context.root))
    if given.on("--quiet"):
        text = "".join(f"{container['id']}\n" for container in found)
    else:
        text = json.dumps(found) + "\n" if style == "json" else _table(found)
    sys.stdout.write(text)
    return 0


def _described(root: str) -> list[dict[str, Any]]:
    found = []
    for name in state.names(root):
        # One that goes while we look is as good as gone.
        with contextlib.suppress(errors.ContainerError, FileNotFoundError):
            found.append(describing.describe(root, state.load(root, name)))
    return found


def _table(found: list[dict[str, Any]]) -> str:
    rows = [[name.upper() for name in _COLUMNS], *([str(item[name]) for name in _COLUMNS] for item in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
