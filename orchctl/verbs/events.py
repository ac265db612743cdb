"""`orchctl events`: what has happened, and who did it."""

import click

from orchctl import complete, errors, eventlist, options, output, terminal, words
from protos import kinds


@click.command()
@output.option
@click.option("-w", "--watch", is_flag=True, help="Go on with each event as it comes.")
@click.option(
    "--for",
    "about",
    default="",
    metavar="KIND/NAME",
    help="Only about this object.",
    shell_complete=complete.references,
)
@click.option("--since", "since_ms", type=options.DURATION, default=None, help="Only what happened within this time.")
@click.option(
    "--type", "type_", type=click.Choice(["normal", "warning"]), default=None, help="Only events of this type."
)
@click.option("--audit", is_flag=True, help="Instead: who changed what, or was refused. For admins.")
@options.all_namespaces
@options.with_settings
def command(
    settings: options.Settings,
    form: str | None,
    watch: bool,
    about: str,
    since_ms: int | None,
    type_: str | None,
    *,
    audit: bool,
) -> None:
    """Show what has happened in a namespace, and to nodes and the cluster; the newest last.

    Equal events are counted. Those about a service tell of its tasks, too. Who did something is whom their certificate
    names; in a cluster without certificates, what a client says of itself.

    \b
    Examples:
      orchctl events
      orchctl events --for service/web -w
      orchctl events -A --type warning --since 1h
      orchctl events --audit --since 24h
    """
    if audit:
        from orchctl import membership

        membership.show_audit(settings, terminal.now_ms() - since_ms if since_ms else 0)
        return
    wanted = eventlist.Wanted(since_ms=terminal.now_ms() - since_ms if since_ms else 0, type=type_ or "")
    selections = eventlist.selections(settings, _reference(about) if about else None)
    shown = eventlist.follow if watch else eventlist.show
    shown(settings, selections, wanted, form or "")


def _reference(text: str) -> tuple[kinds.Kind, str]:
    if "/" not in text:
        raise errors.InvalidInput(f"not an object: {text!r}", hint="write it like service/web")
    return words.split_references([text])[0]
