"""`orchrun resume`: let a paused container go on."""

from runtime import control, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS: tuple[Flag, ...] = ()
ARGUMENTS = "ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Thaw it."""
    [container] = given.take("ID")
    with state.locked(context.root, container):
        control.resume(state.load(context.root, container))
    return 0
