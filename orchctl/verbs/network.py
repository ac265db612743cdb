"""`orchctl network`: the cluster's network."""

import click

from orchctl import complete, networkcheck, options


@click.group()
def command() -> None:
    """Look at the cluster's network, and try it.

    \b
    Examples:
      orchctl network check
      orchctl network check n1 n2 --broken
    """


@command.command()
@click.argument("nodes", nargs=-1, metavar="[NODE…]", shell_complete=complete.nodes)
@click.option("--broken", is_flag=True, help="Show only what does not work.")
@click.option(
    "--timeout",
    "timeout_ms",
    type=options.DURATION,
    default="1s",
    show_default=True,
    help="How long to wait for an answer.",
)
@options.with_settings
def check(settings: options.Settings, nodes: tuple[str, ...], broken: bool, timeout_ms: int) -> None:
    """Let nodes try whether they reach each other, names and services. All nodes, unless some are named.

    Each sends packets as large as tasks may send to every other one, asks its name server for every service, and
    connects to every TCP port of every service that has ready tasks. The exit code is 1 when anything is broken.
    """
    networkcheck.run(settings.server, nodes, timeout_ms=timeout_ms, only_broken=broken)
