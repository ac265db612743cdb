"""`orchrun events`: measure a container again and again until it ends, or once with --stats."""

import os
import select

from runtime import control, errors, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options
from runtime.cli.verbs import stats

FLAGS = (
    Flag("--stats", help="measure once"),
    Flag("--interval", value="SECONDS", help="the time between two measurements (5)"),
)
ARGUMENTS = "[flags] ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Print one line for each measurement."""
    [container] = given.take("ID")
    every_s = _seconds(given.text("--interval", "5"))
    if given.on("--stats"):
        stats.print_once(context, container)
        return 0
    pidfd = control.open_first_process(state.load(context.root, container))
    try:
        while not select.select([pidfd], [], [], every_s)[0]:
            stats.print_once(context, container)
    finally:
        os.close(pidfd)
    return 0


def _seconds(text: str) -> float:
    """5, 0.5, and as Go writes a duration, 5s."""
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86400:
        raise errors.InvalidSpec(f"--interval: {text!r} must be seconds, more than 0")
    return seconds
