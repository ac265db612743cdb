"""`orchctl image logout`: forget a user and password."""

import click

from orchctl import registering, terminal


@click.command()
@click.argument("registry", metavar="REGISTRY")
def command(registry: str) -> None:
    """Forget the user and password that are kept for a registry.

    \b
    Examples:
      orchctl image logout registry.lan:5000
    """
    if registering.logout(registry):
        terminal.say(f"logged out of {registry}")
    else:
        terminal.note(f"no user and password are kept for {registry}")
