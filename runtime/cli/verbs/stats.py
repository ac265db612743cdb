"""`orchrun stats`: one measurement of a container, as `runc events --stats` prints it."""

import json
import sys

from runtime import errors, state
from runtime.cli import measuring
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS: tuple[Flag, ...] = ()
ARGUMENTS = "ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Measure, and print."""
    [container] = given.take("ID")
    print_once(context, container)
    return 0


def print_once(context: Context, container: str) -> None:
    """One line; raises WrongStatus for a container that has ended."""
    known = state.load(context.root, container)
    if known.status == "stopped":
        raise errors.WrongStatus(f"container {container}: container not running, so there is nothing to measure")
    sys.stdout.write(json.dumps(measuring.event(known)) + "\n")
    sys.stdout.flush()
