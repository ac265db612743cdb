"""`orchctl wait`: until objects are as they should be."""

from collections.abc import Sequence

import click

from orchctl import client, complete, conditions, errors, options, queries, terminal, waiting, words
from orchctl.conditions import Condition
from orchctl.progress import Target


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME…", shell_complete=complete.kind_then_names)
@click.option(
    "--for",
    "condition",
    default="settled",
    show_default=True,
    metavar="CONDITION",
    help="ready, settled, rollout, drained, deleted, or a field=value.",
    shell_complete=lambda _context, _parameter, start: [word for word in conditions.WORDS if word.startswith(start)],
)
@options.timeout
@options.with_settings
def command(settings: options.Settings, what: tuple[str, ...], condition: str, timeout_ms: int) -> None:
    """Wait until objects are as they should be. All of them have to be there, unless they are waited out of it.

    Exit codes: 0 all of them are so, 1 not in time, or never.

    \b
    Examples:
      orchctl wait service web --for=ready --timeout 1m
      orchctl wait service/web service/api --for=rollout
      orchctl wait node n2 --for=drained
      orchctl wait node n2 --for=spec.availability=drain
      orchctl wait service web --for=deleted
    """
    asked = dict(_targets(settings, what, condition))
    waiting.until(settings.server, asked, timeout_ms, condition)


def _targets(settings: options.Settings, what: Sequence[str], condition: str) -> list[tuple[Target, Condition]]:
    """The objects that are there. What is to be deleted may be gone already."""
    found = []
    with client.connect(settings.server) as stub:
        for kind, name in words.split_references(what):
            wanted = conditions.parse(condition, kind)
            try:
                with client.translated(settings.server):
                    value = queries.find(stub, kind, name, settings.namespace if kind.namespaced else "")
            except errors.NotFound:
                if condition != conditions.DELETED:
                    raise
                terminal.say(f"{kind.name}/{name}: deleted")
                continue
            found.append((Target.of(value), wanted))
    return found
