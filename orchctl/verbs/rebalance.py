"""`orchctl rebalance`: spread services over the nodes again."""

import click

from orchctl import client, options, output, tables, terminal
from protos.orch.v1 import control_pb2 as control

TITLES = ("NAMESPACE", "SERVICE", "TASK", "FROM", "TO")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would move.")
@options.with_settings
def command(settings: options.Settings, dry_run: bool) -> None:
    """Move tasks so that services are spread over the nodes again, without regard to how many may move in a minute.

    Each new task is ready before the old one stops, one after another in each service. Services with `rebalance: off`,
    or `update: {order: stop-first}`, and those in which something goes on, stay as they are.

    \b
    Examples:
      orchctl rebalance --dry-run
      orchctl rebalance
    """
    with client.connect(settings.server) as stub:
        request = control.RebalanceRequest(dry_run=dry_run)
        response = stub.Rebalance(request, timeout=client.CALL_TIMEOUT_S)
    for service in response.staying:
        place = f"service/{service.service} in {service.namespace}"
        terminal.say(terminal.one_line(f"{place} could be spread better, and stays: {service.why}"))
    if not response.moves:
        terminal.say(
            "nothing to move: no service would be spread better" if not response.staying else "nothing to move"
        )
        return
    rows = [
        [terminal.one_line(word) for word in (one.namespace, one.service, one.task, one.source, one.target)]
        for one in response.moves
    ]
    output.print_lines(list(tables.table(TITLES, rows)))
