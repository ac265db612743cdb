"""`orchrun start`: let a created container run its program; fails with the reason when it cannot be executed."""

from runtime import unattended
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS: tuple[Flag, ...] = ()
ARGUMENTS = "ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Open the container's gate."""
    [container] = given.take("ID")
    unattended.start(context.root, container)
    return 0
