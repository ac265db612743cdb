"""A check of the network: what nodes have found, as a table, and what is broken, by name.

The rule: it succeeds only when every node was heard and nothing that they tried is broken. What cannot be known, such
as whether a silent UDP port has heard anything, is shown, and is no failure.
"""

from collections.abc import Sequence

from orchctl import client, errors, output, tables, terminal
from protos.orch.v1 import control_pb2 as control

TIMEOUT_S = 120.0
TITLES = ("FROM", "TO", "WHAT", "RESULT")


def run(server: str, nodes: Sequence[str], *, timeout_ms: int, only_broken: bool) -> None:
    """Prints the table. Raises NotDone, which names what is broken."""
    request = control.CheckNetworkRequest(nodes=nodes, timeout=timeout_ms)
    findings = client.at_leader(server, lambda address: _ask(address, request))
    broken = [finding for finding in findings if finding.problem]
    if shown := broken if only_broken else findings:
        output.print_lines(tables.table(TITLES, [row(finding) for finding in shown]))
    if broken:
        raise errors.NotDone(summary(len(broken), len(findings)), details=[line(finding) for finding in broken])
    if not findings:
        terminal.say("nothing to try: there is no other node, and no service with a ready task")


def row(finding: control.NetworkFinding) -> list[str]:
    """Its cells."""
    if finding.problem:
        result = f"broken: {finding.problem}"
    elif finding.unknown:
        result = f"unknown: {finding.unknown}"
    else:
        result = f"ok   {finding.microseconds / 1000:.2f} ms"
    return [terminal.one_line(cell) or "-" for cell in (finding.source, finding.target, finding.what, result)]


def line(finding: control.NetworkFinding) -> str:
    """What is broken, in one line."""
    if finding.source == finding.target:
        return f"{finding.source}: {finding.what}: {finding.problem}"
    return f"{finding.source} → {finding.target}: {finding.what}: {finding.problem}"


def summary(broken: int, tried: int) -> str:
    """In one line."""
    return f"{broken} of {tried} things that were tried {'is' if broken == 1 else 'are'} broken"


def _ask(server: str, request: control.CheckNetworkRequest) -> list[control.NetworkFinding]:
    with client.connect(server) as stub:
        findings = [
            finding for response in stub.CheckNetwork(request, timeout=TIMEOUT_S) for finding in response.findings
        ]
    return sorted(findings, key=lambda finding: (finding.source, finding.target, finding.what))
