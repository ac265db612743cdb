"""`orchrun pause`: freeze every process of a container."""

from runtime import control, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS: tuple[Flag, ...] = ()
ARGUMENTS = "ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Freeze it; returns when everything has stopped."""
    [container] = given.take("ID")
    with state.locked(context.root, container):
        control.pause(state.load(context.root, container))
    return 0
