"""`orchctl logs`: what tasks printed, merged over the tasks of a service."""

from typing import Any

import click

from orchctl import client, complete, errors, logview, options, queries, terminal, words
from protos import units
from protos.orch.v1 import control_pb2 as control


class Moment(click.ParamType[int]):
    """`5m` ago, or a moment such as `2026-01-31T12:00:00Z`: milliseconds since 1970."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            if "T" in value:
                return units.parse_timestamp(value)
            # The server takes 0 for "from the beginning".
            return max(terminal.now_ms() - units.parse_duration(value), 1)
        except ValueError as error:
            self.fail(f"{error}; a moment such as 2026-01-31T12:00:00Z is understood, too", param, ctx)


@click.command()
@click.argument("target", shell_complete=complete.tasks_and_services)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
@click.option("--since", type=Moment(), metavar="5m", help="Only lines that are younger.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last lines of each task.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("-c", "--container", default="", metavar="NAME", help="Of this container; the main one when left out.")
@click.option("--all-containers", is_flag=True, help="Of every container, with its name after the task's.")
@click.option("--no-prefix", is_flag=True, help="Do not put the task's name before each line.")
@options.with_settings
def command(
    settings: options.Settings,
    target: str,
    follow: bool,
    since: int | None,
    tail: int | None,
    timestamps: bool,
    container: str,
    all_containers: bool,
    no_prefix: bool,
) -> None:
    """Show what a service or a task printed. A service's lines have the task's name before them.

    \b
    Examples:
      orchctl logs hello -f
      orchctl logs hello-1-k7x2m9q4 --tail 20 --timestamps
      orchctl logs hello --since 5m
      orchctl logs hello -c migrate
    """
    server = settings.server
    kind = _kind(server, target, settings.namespace)
    name = target.partition("/")[2] or target
    request = control.LogsRequest(
        namespace=settings.namespace,
        service=name if kind == "service" else "",
        task=name if kind == "task" else "",
        follow=follow,
        since=since or 0,
        tail=-1 if tail is None else tail,
        container=container,
        all_containers=all_containers,
    )
    prefixed = (kind == "service" or all_containers) and not no_prefix
    logview.show(server, request, logview.Writer(prefixed=prefixed, timestamps=timestamps))


def _kind(server: str, target: str, namespace: str) -> str:
    """Whether a service or a task is meant: what the word says, else the service of that name, if there is one."""
    if "/" in target:
        kind = words.kind(target.partition("/")[0]).name
        if kind not in {"service", "task"}:
            raise errors.InvalidInput(f"a {kind} prints nothing", hint="name a service or a task")
        return kind
    try:
        with client.connect(server) as stub:
            queries.find(stub, words.kind("service"), target, namespace)
    except errors.NotFound:
        return "task"
    return "service"
