"""`orchrun state`: the specification's state, and what runc's callers find beside it."""

import json
import os
import sys

from runtime import state
from runtime.cli import describing
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS: tuple[Flag, ...] = ()
ARGUMENTS = "ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Print it."""
    [container] = given.take("ID")
    described = describing.describe(os.path.abspath(context.root), state.load(context.root, container))
    sys.stdout.write(json.dumps(described, indent=2) + "\n")
    return 0
