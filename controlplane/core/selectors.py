"""Label selectors: text to a question that is asked of labels.

    app=web   app==web   tier!=test   zone in (a, b)   zone notin (c)   gpu   !old

Parts are separated by commas, and all of them have to hold. As elsewhere in the field, `!=` and `notin` also hold for
an object that does not carry the label.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from controlplane.core import request_errors as errors

MAX_CHARACTERS = 4_096

Labels: TypeAlias = Mapping[str, str]
Question: TypeAlias = Callable[[Labels], bool]

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9._/:@+-]*"
_FORMS = re.compile(
    rf"""\s*(?:
        (?P<key>{_KEY})\s*(?P<sign>==?|!=)\s*(?P<value>{_VALUE})
      | (?P<member>{_KEY})\s+(?P<word>in|notin)\s*\(\s*(?P<values>{_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)
      | (?P<absent>!?)\s*(?P<present>{_KEY})
    )\s*(?:,|$)""",
    re.ASCII | re.VERBOSE,
)


def parse(text: str) -> Question:
    """The question that a selector asks. Raises Invalid. An empty selector fits everything."""
    if len(text) > MAX_CHARACTERS:
        raise errors.Invalid(f"a selector of {len(text)} characters; {MAX_CHARACTERS} are the most")
    asked: list[Question] = []
    at = 0
    while at < len(text):
        found = _FORMS.match(text, at)
        if found is None:
            raise errors.Invalid(
                f"not a label selector: {text[at:]!r:.100}",
                hint="write it like app=web,tier!=test,zone in (a, b),gpu,!old",
            )
        asked.append(_question(found))
        at = found.end()
    return lambda labels: all(one(labels) for one in asked)


def _question(found: "re.Match[str]") -> Question:
    if found["key"]:
        key, value = found["key"], found["value"]
        if found["sign"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found["member"]:
        key, values = found["member"], frozenset(re.split(r"\s*,\s*", found["values"]))
        if found["word"] == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    key = found["present"]
    if found["absent"]:
        return lambda labels: key not in labels
    return lambda labels: key in labels
