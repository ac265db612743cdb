"""`orchctl top`: what services carry, and what tasks and nodes use."""

import functools

import click

from orchctl import options, top
from protos.orch.v1 import control_pb2 as control

_INTERVAL = click.option(
    "--interval",
    "interval_ms",
    type=options.DURATION,
    default="2s",
    show_default=True,
    help="How long to count.",
)
_WATCH = click.option("-w", "--watch", is_flag=True, help="Go on, with a new table after each interval.")


@click.group()
def command() -> None:
    """Show what services, tasks and nodes carry and use now. Nodes count in their kernels, and are asked only by this.

    \b
    Examples:
      orchctl top services
      orchctl top tasks -A
      orchctl top nodes -w
    """


@command.command()
@_INTERVAL
@_WATCH
@options.all_namespaces
@options.with_settings
def services(settings: options.Settings, interval_ms: int, watch: bool) -> None:
    """Show connections, packets and bytes a second of each service, over all nodes.

    Counted is what goes through virtual addresses and published ports. REFUSED/S are attempts that found no ready task
    or no such port, or that came from where they may not.
    """
    namespace = _namespace(settings)
    table = top.Table(
        request=control.UsageRequest(services=True),
        titles=(*_first(namespace), "SERVICE", "CONNECTIONS/S", "REFUSED/S", "PACKETS/S", "BYTES/S"),
        rows=functools.partial(top.service_rows, namespace),
        nothing="no service has had a connection yet",
    )
    top.show(settings, table, interval_ms=interval_ms, watch=watch)


@command.command()
@_INTERVAL
@_WATCH
@options.all_namespaces
@options.with_settings
def tasks(settings: options.Settings, interval_ms: int, watch: bool) -> None:
    """Show the processors that each task keeps busy (0.50: half of one), its memory and its processes."""
    namespace = _namespace(settings)
    table = top.Table(
        request=control.UsageRequest(tasks=True),
        titles=(*_first(namespace), "TASK", "NODE", "CPU", "MEMORY", "PROCESSES"),
        rows=functools.partial(top.task_rows, namespace),
        nothing="no task runs",
    )
    top.show(settings, table, interval_ms=interval_ms, watch=watch)


@command.command()
@_INTERVAL
@_WATCH
@options.with_settings
def nodes(settings: options.Settings, interval_ms: int, watch: bool) -> None:
    """Show the processors that each machine keeps busy, and its memory in use, with or without tasks of the cluster."""
    table = top.Table(
        request=control.UsageRequest(),
        titles=("NODE", "CPU", "CPU%", "MEMORY", "MEMORY%"),
        rows=top.node_rows,
        nothing="no node has told twice",
    )
    top.show(settings, table, interval_ms=interval_ms, watch=watch)


def _namespace(settings: options.Settings) -> str:
    return "" if settings.all_namespaces else settings.namespace


def _first(namespace: str) -> tuple[str, ...]:
    return () if namespace else ("NAMESPACE",)
