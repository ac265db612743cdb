"""The table that `orchctl cluster status` prints."""

from collections.abc import Iterator, Sequence

from deploy.local import nodes, record
from orchctl.errors import OrchctlError
from protos import families


def table(the_record: record.Record) -> str:
    """One line a process: its name, pid, state, address and the range of its tasks."""
    plan = the_record.plan
    try:
        known = {node.name: node for node in nodes.ask(plan)}
        trouble = ""
    except OrchctlError as error:
        known, trouble = {}, f"\n{error}"
    rows = [("NAME", "PID", "STATE", "ADDRESS", "TASKS", "LOG"), *_rows(the_record, known)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + trouble


def _rows(the_record: record.Record, known: dict[str, nodes.Node]) -> Iterator[Sequence[str]]:
    plan = the_record.plan
    members = {plan.etcd_of(name): f"{plan.member(name).endpoint} (inside)" for name in plan.instance_names}
    addresses = {**members, **dict(zip(plan.instance_names, plan.servers, strict=True))}
    for name in ("supervisor", "sweeper", *plan.process_names):
        process = the_record.processes.get(name)
        alive = process is not None and process.alive
        state, node = ("running" if alive else "off"), known.get(name)
        if node is not None:
            state = f"{state}, {node.state}"
        yield (
            name,
            str(process.pid) if process is not None and alive else "-",
            state,
            plan.node_address(name) if name in plan.node_names else addresses.get(name, "-"),
            families.shown(node, "subnet") if node is not None else "-",
            str(plan.log("supervisor" if name == "sweeper" else name)),
        )
