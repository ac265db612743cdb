"""`orchrun delete`: remove an ended container; by force any container, and then nothing there is no error."""

import contextlib

from runtime import errors, removal, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (Flag("--force", "-f", help="kill it first when it runs"),)
ARGUMENTS = "[--force] ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Remove it."""
    [container] = given.take("ID")
    force = given.on("--force")
    gone = contextlib.suppress(errors.UnknownContainer) if force else contextlib.nullcontext()
    with gone, state.locked(context.root, container):
        remove(context.root, container, force=force)
    return 0


def remove(root: str, container: str, *, force: bool) -> None:
    """Delete a locked container. One that never ran its program needs no force, as with runc."""
    if not force:
        known = state.load(root, container)
        force = known.status == "created" and not known.monitor_pid
    removal.delete_locked(root, container, force=force)
