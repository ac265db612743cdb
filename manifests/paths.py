"""The place of a field inside an object: `spec.template.container.ports[1].target`, `meta.labels["a.b"]`.

A path is a tuple of field names as manifests write them, keys of maps and indexes of lists; `show` is how people see
it.
"""

import re
from typing import TypeAlias

from manifests import quoting

Path: TypeAlias = tuple[str | int, ...]

MAX_STEP = 200
"""Characters of a key that are shown."""

_PLAIN_STEP = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)


def show(path: Path) -> str:
    """`("spec", "ports", 1, "a.b")` → `spec.ports[1]["a.b"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_STEP.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{quoting.shown(step, MAX_STEP)}]"
    return text
