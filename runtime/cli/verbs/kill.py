"""`orchrun kill`: signal the first process, or all of them."""

from runtime import control, signals, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (Flag("--all", "-a", help="every process of the container"),)
ARGUMENTS = "[--all] ID [SIGNAL]"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Send the signal."""
    container, signal = given.take("ID", "[SIGNAL]")
    number = signals.number_of(signal or "TERM")
    control.kill(state.load(context.root, container), number, everybody=given.on("--all"))
    return 0
