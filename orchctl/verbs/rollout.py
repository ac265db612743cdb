"""`orchctl rollout`: how a new revision of a service goes in, and how it is stopped or taken back."""

import click

from orchctl import client, complete, history, options, output, queries, rolling, terminal, waiting, words
from orchctl.progress import Target
from orchctl.verbs import restart
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

_names = click.argument("names", nargs=-1, required=True, metavar="SERVICE…", shell_complete=complete.services)
_name = click.argument("name", metavar="SERVICE", shell_complete=complete.services)


@click.group()
def command() -> None:
    """Follow, pause, promote and take back how a new revision of a service goes in.

    \b
    Examples:
      orchctl rollout status web -w
      orchctl rollout history web
      orchctl rollout undo web --to-revision 3
    """


@command.command()
@_name
@click.option("-w", "--watch", is_flag=True, help="Wait until it is over; exit code 1 when it has failed.")
@options.timeout
@options.with_settings
def status(settings: options.Settings, name: str, watch: bool, timeout_ms: int) -> None:
    """Tell where the rollout of a service stands."""
    service = _find(settings, name)
    if watch:
        waiting.until_settled(settings.server, [Target.of(service)], timeout_ms)
    else:
        output.print_lines(history.status(service, terminal.now_ms()))


@command.command("history")
@_name
@options.with_settings
def history_(settings: options.Settings, name: str) -> None:
    """List the revisions of a service: what each changed, who asked for it, and what became of it."""
    service = _find(settings, name)
    with client.connect(settings.server) as stub:
        selection = control.ListRequest(kind="revision", namespace=service.meta.namespace, service=service.meta.name)
        known = [value for value in queries.objects(stub, selection) if isinstance(value, pb.Revision)]
    output.print_lines(history.table(service, known, terminal.now_ms()))


@command.command()
@_name
@click.option(
    "--to-revision",
    "revision",
    type=click.IntRange(min=1, max=options.MOST),
    metavar="N",
    help="Its number in the history.",
)
@options.detach
@options.timeout
@options.with_settings
def undo(settings: options.Settings, name: str, revision: int | None, detach: bool, timeout_ms: int) -> None:
    """Go back to the revision before, or to a certain one."""
    wait_ms = None if detach else timeout_ms
    rolling.ask(settings, [name], control.ROLLOUT_ACTION_UNDO, wait_ms=wait_ms, revision=revision or 0)


@command.command()
@_names
@options.with_settings
def pause(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Replace nothing, until `resume`. Tasks that fail are made again as before."""
    rolling.ask(settings, names, control.ROLLOUT_ACTION_PAUSE)


@command.command()
@_names
@options.detach
@options.timeout
@options.with_settings
def resume(settings: options.Settings, names: tuple[str, ...], detach: bool, timeout_ms: int) -> None:
    """Go on with what was paused or has failed. What had failed before counts no more."""
    rolling.ask(settings, names, control.ROLLOUT_ACTION_RESUME, wait_ms=None if detach else timeout_ms)


@command.command()
@_names
@options.detach
@options.timeout
@options.with_settings
def promote(settings: options.Settings, names: tuple[str, ...], detach: bool, timeout_ms: int) -> None:
    """Say that the canary is good: the other tasks are replaced, too."""
    rolling.ask(settings, names, control.ROLLOUT_ACTION_PROMOTE, wait_ms=None if detach else timeout_ms)


@command.command()
@_names
@options.with_settings
def abort(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Let the last good revision take the place of the one that goes in. What was applied stays as it is."""
    rolling.ask(settings, names, control.ROLLOUT_ACTION_ABORT)


command.add_command(restart.command, "restart")


def _find(settings: options.Settings, name: str) -> pb.Service:
    name = words.service_name(name)
    with client.connect(settings.server) as stub:
        found = queries.find(stub, words.kind("service"), name, settings.namespace)
    assert isinstance(found, pb.Service), "a service was asked for"
    return found
