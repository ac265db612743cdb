"""`orchctl explain`: the reference documentation of manifests. Needs no server."""

import click

from manifests import explain
from orchctl import complete, errors, terminal, words


@click.command()
@click.argument("path", default="", metavar="[KIND[.FIELD…]]", shell_complete=complete.explained)
def command(path: str) -> None:
    """Tell what a kind or a field of a manifest means. Without a path: the kinds.

    \b
    Examples:
      orchctl explain service
      orchctl explain service.spec.template.container.resources
    """
    try:
        first, dot, rest = path.partition(".")
        kind = words.kind(first).name if first else ""
        terminal.say(explain.explain(f"{kind}{dot}{rest}").rstrip("\n"))
    except explain.UnknownPath as error:
        raise errors.InvalidInput(error.message, hint=error.hint) from error
