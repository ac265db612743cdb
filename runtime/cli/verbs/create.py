"""`orchrun create`: the container is there, its program does not run yet. Its first process is left to the caller."""

import os

from runtime import unattended
from runtime.cli import bundle, making
from runtime.cli.main import Context
from runtime.cli.options import Options

FLAGS = (*bundle.FLAGS, *making.FLAGS, *making.CREATION_FLAGS)
ARGUMENTS = "[flags] ID"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Create, and leave."""
    unattended.create(request(context, given))
    return 0


def request(context: Context, given: Options) -> unattended.Request:
    """What the flags ask for; shared with `run`."""
    [container] = given.take("ID")
    preserved = making.settle(given)
    config, where = bundle.load(given)
    if isinstance(config.get("process"), dict):
        config["process"] = making.with_listen_fds(config["process"])
    os.makedirs(context.root, 0o700, exist_ok=True)
    return unattended.Request(
        root=os.path.abspath(context.root),
        container=container,
        config=config,
        bundle=where,
        preserved_fds=preserved,
        pid_file=given.text("--pid-file"),
        take_terminal=making.terminal_taker(given),
        manager=context.manager,
    )
