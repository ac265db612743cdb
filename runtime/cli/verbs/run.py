"""`orchrun run`: create and start; then wait, pass signals and the terminal on, and delete. Or leave, with --detach."""

from runtime import removal, syscalls, unattended, values
from runtime.cli import foreground
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options
from runtime.cli.verbs import create

FLAGS = (
    *create.FLAGS,
    Flag("--detach", "-d", help="leave the container running, and return"),
    Flag("--keep", help="do not delete the container when it has ended"),
    Flag("--no-subreaper", help="do not become the parent of the container's orphans"),
)
ARGUMENTS = "[flags] ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Run it; in the foreground the exit code is the program's."""
    request = create.request(context, given)
    if given.on("--detach"):
        _start(request)
        return 0
    if not given.on("--no-subreaper"):
        syscalls.set_child_subreaper()
    front = foreground.Foreground()
    if request.take_terminal is None:
        request = values.replace(request, take_terminal=front.take_terminal)
    pid = _start(request)
    code = front.wait(pid)
    if not given.on("--keep"):
        removal.delete(request.root, request.container, force=True)
    return code


def _start(request: unattended.Request) -> int:
    """Create and start, or leave nothing."""
    pid = unattended.create(request).pid
    try:
        unattended.start(request.root, request.container)
    except BaseException:
        removal.delete(request.root, request.container, force=True)
        raise
    return pid
