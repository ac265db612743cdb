"""`orchrun ps`: a container's processes, as pids of the host or as the host's ps(1) shows them."""

import json
import subprocess
import sys

from runtime import control, errors, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (Flag("--format", "-f", value="FORMAT", help="table or json"),)
ARGUMENTS = "[--format table|json] ID [ps option…]"
WORDS_END_FLAGS = True


def run(context: Context, given: Options) -> int:
    """Print them."""
    container, *ps_options = given.words or [""]
    if not container:
        raise errors.InvalidSpec("arguments: expected ID")
    style = given.text("--format", "table")
    if style not in {"table", "json"}:
        raise errors.InvalidSpec(f"--format: {style!r} is none; use table or json")
    pids = control.pids(state.load(context.root, container))
    text = json.dumps(pids) + "\n" if style == "json" else _table(set(pids), ps_options or ["-ef"])
    sys.stdout.write(text)
    return 0


def _table(pids: set[int], ps_options: list[str]) -> str:
    """The lines of ps(1) about these processes, under its heading."""
    shown = subprocess.run(["ps", *ps_options], capture_output=True, text=True, check=False, timeout=60)
    if shown.returncode:
        raise errors.InvalidSpec(f"ps {' '.join(ps_options)}: {shown.stderr.strip()}")
    heading, *rows = shown.stdout.splitlines()
    titles = heading.split()
    if "PID" not in titles:
        raise errors.InvalidSpec(f"ps {' '.join(ps_options)}: shows no PID column; choose options that do")
    column = titles.index("PID")
    ours = [row for row in rows if (cells := row.split())[column : column + 1] and cells[column].isdigit()]
    return "".join(f"{row}\n" for row in [heading, *(row for row in ours if int(row.split()[column]) in pids)])
