"""`top`: looks at the counters of all nodes twice, and shows what has come in between.

Two rules: a node is asked while somebody looks and at no other time; and one that does not tell is named, since its
part is missing in the sums.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchctl import amounts, client, errors, options, output, rates, tables, terminal
from protos.orch.v1 import control_pb2 as control

TIMEOUT_S = 20.0
_ONE_SIGN = 10  # a number below has one more sign behind the point

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A kind of thing to show: what to ask for, the titles, and the rows from two looks."""

    request: control.UsageRequest
    titles: tuple[str, ...]
    rows: Callable[[rates.Nodes, rates.Nodes], Rows]
    nothing: str


def show(settings: options.Settings, table: Table, *, interval_ms: int, watch: bool) -> None:
    """Prints the table once, or over and over until it is interrupted."""
    before = _look(settings.server, table.request)
    for number in itertools.count():
        time.sleep(interval_ms / 1000)
        now = _look(settings.server, table.request)
        rows = table.rows(before, now)
        _print([*tables.table(table.titles, rows)] if rows else [table.nothing], again=bool(number), watch=watch)
        for usage in now.values():
            if usage.problem:
                terminal.note(f"warning: {usage.node} is not counted: {usage.problem}")
        if not watch:
            return
        before = now


def service_rows(namespace: str, before: rates.Nodes, now: rates.Nodes) -> Rows:
    """Those with the most bytes first. An empty namespace: all of them, with a column for it."""
    found = sorted(
        rates.services(before, now).items(), key=lambda item: (-item[1].bytes, -item[1].connections, item[0])
    )
    return [
        [
            *([] if namespace else [space]),
            name,
            rate(traffic.connections),
            rate(traffic.refused),
            rate(traffic.packets),
            amounts.size(round(traffic.bytes)),
        ]
        for (space, name), traffic in found
        if namespace in {"", space}
    ]


def task_rows(namespace: str, before: rates.Nodes, now: rates.Nodes) -> Rows:
    """Those that use the most processor time first. What the control plane does not know has only an id."""
    found = [each for each in rates.tasks(before, now) if namespace in {"", each[1].namespace}]
    found.sort(key=lambda each: (-each[2].cpu, -each[2].memory_bytes, each[1].name))
    return [
        [
            *([] if namespace else [task.namespace or "-"]),
            task.name or task.task_id,
            node.node,
            f"{share.cpu:.2f}",
            amounts.size(share.memory_bytes),
            str(task.processes),
        ]
        for node, task, share in found
    ]


def node_rows(before: rates.Nodes, now: rates.Nodes) -> Rows:
    """By name."""
    return [
        [
            node.node,
            f"{share.cpu:.2f}",
            f"{100 * share.cpu / max(1, node.processors):.0f}%",
            amounts.size(share.memory_bytes),
            f"{100 * share.memory_bytes / max(1, node.memory_total):.0f}%",
        ]
        for node, share in rates.nodes(before, now)
    ]


def rate(value: float) -> str:
    """`0`, `0.4`, `12`."""
    return f"{value:.1f}" if 0 < value < _ONE_SIGN else f"{value:.0f}"


def _look(server: str, request: control.UsageRequest) -> rates.Nodes:
    found = client.at_leader(server, lambda address: _ask(address, request))
    if not found:
        raise errors.NotDone("there is no node to ask", hint="see `orchctl node ls`")
    return found


def _ask(server: str, request: control.UsageRequest) -> dict[str, control.NodeUsage]:
    with client.connect(server) as stub:
        return {response.usage.node: response.usage for response in stub.Usage(request, timeout=TIMEOUT_S)}


def _print(lines: Sequence[str], *, again: bool, watch: bool) -> None:
    """In a terminal, `-w` shows one table in place; a pipe gets one after the other, with a line between them."""
    if watch and terminal.is_terminal():
        sys.stdout.write("\x1b[H\x1b[J")
        lines = lines[: terminal.size().lines - 2]
    elif again:
        terminal.say()
    output.print_lines(lines)
    sys.stdout.flush()
