"""`${task.slot}` and its like in a container's environment, command and arguments.

Two rules. Only names that begin with `task.`, `service.` or `node.` are ours; every other `${…}` is the program's, and
stays as it was written. And `$${` is a `${` that nobody expands.

    GREETING=replica ${task.slot} on ${node.name}, $${task.slot}, ${HOME}
    GREETING=replica 2 on n1, ${task.slot}, ${HOME}
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

NAMES: Final = (
    "task.id",
    "task.name",
    "task.slot",
    "task.address",
    "service.name",
    "service.namespace",
    "node.name",
    "node.address",
)
LABELS: Final = "node.labels."
"""What a label of the node begins with: `${node.labels.zone}`."""

_FOUND: Final = re.compile(r"\$\$\{|\$\{((?:task|service|node)\.[^}]*)\}")


def expand(text: str, values: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """The text with every name of ours replaced. A label that the node does not have is empty."""

    def replacement(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "${"
        if name.startswith(LABELS):
            return labels.get(name.removeprefix(LABELS), "")
        return values.get(name, found[0])

    return _FOUND.sub(replacement, text) if "${" in text else text


def unknown(text: str) -> Iterator[str]:
    """Names that look like ours and are none: `task.slott`."""
    for found in _FOUND.finditer(text):
        name = found[1]
        if name is not None and name not in NAMES and not (name.startswith(LABELS) and name != LABELS):
            yield name
