"""Where tasks would go, as `orchctl apply --dry-run` shows it. Pure: values in, lines out."""

from collections.abc import Sequence

from orchctl import tables, terminal
from protos.orch.v1 import control_pb2 as control

TITLES = ("SERVICE", "SLOT", "NODE", "REMARK")


def page(placements: Sequence[control.PlannedTask], unplanned: int = 0) -> list[str]:
    """A table with a line for each task; nothing when there are none. `unplanned`: how many more there would be."""
    rows = [
        [terminal.one_line(one.service), str(one.slot), terminal.one_line(one.node) or "-", _remark(one)]
        for one in placements
    ]
    if not rows:
        return []
    more = f"… and {unplanned} new task{'s' if unplanned != 1 else ''} more, for which nobody has looked"
    title = "Where its tasks would go, as it is seen now:"
    return ["", title, *tables.table(TITLES, rows), *([more] if unplanned else [])]


def _remark(one: control.PlannedTask) -> str:
    new = f"new, {one.fetches}" if one.fetches else "new"
    return terminal.one_line(one.message or ("is there already" if one.stays else new))
