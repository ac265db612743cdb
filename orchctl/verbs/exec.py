"""`orchctl exec`: a command inside a task's container."""

import os
import sys

import click

from orchctl import arguments, complete, errors, options, remote
from protos.orch.v1 import control_pb2 as control


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="An environment variable. May be repeated.")
@click.option("-w", "--workdir", default="", help="The working directory.")
@click.option("-u", "--user", default="", help="The user, such as 1000:1000.")
@click.option("-c", "--container", default="", metavar="NAME", help="In this container; the main one when left out.")
@click.argument("target", shell_complete=complete.tasks_and_services)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT…]")
@options.with_settings
def command(
    settings: options.Settings,
    stdin: bool,
    tty: bool,
    env: tuple[str, ...],
    workdir: str,
    user: str,
    container: str,
    target: str,
    words: tuple[str, ...],
) -> int:
    """Run a command in a task, or in one of a service's tasks. Ends with the command's exit code.

    \b
    Examples:
      orchctl exec hello -- cat /etc/hostname
      orchctl exec -it hello-1-k7x2m9q4 -- sh
      orchctl exec -c proxy hello -- ps
    """
    start = control.ExecStart(
        namespace=settings.namespace,
        target=target.removeprefix("task/").removeprefix("service/"),
        command=_command(words),
        tty=tty,
        stdin=stdin,
        env=dict(pair.split("=", 1) for pair in arguments.environment(env)),
        working_dir=workdir,
        user=user,
        container=container,
    )
    if tty and stdin and not sys.stdin.isatty():
        raise errors.InvalidInput("standard input is not a terminal", hint="leave out -t")
    if tty and "TERM" not in start.env and os.environ.get("TERM"):
        start.env["TERM"] = os.environ["TERM"]
    return remote.run(settings.server, start)


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    command_words = words[1:] if words[0] == "--" else words
    if not command_words:
        raise errors.InvalidInput("no command", hint="such as `orchctl exec hello -- ls /`")
    if words[0] != "--" and words[0].startswith("-"):
        raise errors.InvalidInput(f"options go before the target: {words[0]}", hint="see `orchctl exec --help`")
    return command_words
