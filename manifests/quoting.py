"""Texts in double quotes, right in YAML, in JSON and on a terminal: on one line, with nothing that moves the cursor."""

import json
import re

MAX_SHOWN = 60
"""Characters of somebody's text in a message."""

_LEFT_BY_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
"""What JSON leaves as it is and YAML or terminals do not; also what turns the rest of a line around."""


def quote(text: str) -> str:
    r"""`say "hi"` → `"say \"hi\""`."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _LEFT_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def shown(text: str, most: int = MAX_SHOWN) -> str:
    """The text in quotes, cut with `…` when it is long."""
    return quote(text if len(text) <= most else text[: most - 1] + "…")
