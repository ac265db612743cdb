"""`orchctl why`: why a task is on its node, or on none."""

import click

from orchctl import client, complete, options, output, tables, terminal
from protos.orch.v1 import control_pb2 as control

TITLES = ("NODE", "TAKES IT", "WHY")
FILTER_TITLES = ("FILTER", "PASSES", "WHY NOT")


@click.command()
@click.argument("name", metavar="TASK|SERVICE", shell_complete=complete.services)
@click.option(
    "--node", default="", metavar="NODE", help="Only this node, with every filter.", shell_complete=complete.nodes
)
@options.with_settings
def command(settings: options.Settings, name: str, node: str) -> None:
    """Tell node by node why a task is or is not placed there, as it is seen now.

    Of a service it tells where one more task would go; of a global one, which nodes are its own. Nodes that would take
    it stand first, the best on top, with what they are compared by; of the others the first reason is told.

    \b
    Examples:
      orchctl why web-1-k7x2m9q4
      orchctl why web --node n2
    """
    request = control.WhyRequest(namespace=settings.namespace, name=name, node=node)
    response = client.near_leader(settings.server, lambda server: _ask(server, request))
    output.print_lines(page(response, every=bool(node)))


def _ask(server: str, request: control.WhyRequest) -> control.WhyResponse:
    with client.connect(server) as stub:
        return stub.Why(request, timeout=client.CALL_TIMEOUT_S)


def page(response: control.WhyResponse, *, every: bool) -> list[str]:
    """The answer as lines; with `every` filter of each node."""
    lines = [terminal.one_line(f"{response.task or f'service {response.service}'}: {response.summary}")]
    for node in response.nodes if every else ():
        rows = [
            [one.filter, "no" if one.refusal else "yes", terminal.one_line(one.refusal) or "-"] for one in node.filters
        ]
        lines += ["", f"{_name(node)}: {_reason(node)}", *tables.table(FILTER_TITLES, rows)]
    if not every and response.nodes:
        rows = [[_name(node), "yes" if node.takes else "no", _reason(node)] for node in response.nodes]
        lines += ["", *tables.table(TITLES, rows)]
    return lines


def _name(node: control.NodeVerdict) -> str:
    return terminal.one_line(f"{node.node} (here)" if node.here else node.node)


def _reason(node: control.NodeVerdict) -> str:
    if node.takes:
        return terminal.one_line(", ".join(node.score))
    return terminal.one_line(next(f"{one.filter}: {one.refusal}" for one in node.filters if one.refusal))
