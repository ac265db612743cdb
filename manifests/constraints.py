"""The language of constraints on nodes: `node.labels.zone == a`, `node.labels.disk in (ssd, nvme)`, and their like.

Two rules. A text is either understood whole or refused with what would be right. And a node without the attribute
fulfils what denies (`!=`, `not in`, `not exists`) and nothing that asks for a value.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from manifests import quoting, suggest

LABELS = "node.labels."
FIXED = ("node.id", "node.name", "node.hostname", "node.platform")
"""The attributes that every node has; beside them, each label is one: `node.labels.KEY`."""

MAX_TEXT = 512
_HOW = "write it like node.labels.zone == a, != a, in (a, b), not in (a, b), exists or not exists"

_ATTRIBUTE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII)
_TEXT = re.compile(r"\s*(?P<attribute>[^\s=!<>()]+)\s*(?P<rest>\S.*?)?\s*", re.ASCII | re.DOTALL)
_COMPARISON = re.compile(r"(?P<sign>==|!=)\s*(?P<value>\S+)", re.ASCII)
_LIST = re.compile(r"(?P<sign>not\s+in|in)\s*\((?P<values>[^()]*)\)", re.ASCII)
_PRESENCE = re.compile(r"(?P<sign>not\s+exists|exists)", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/:@+-]*[A-Za-z0-9])?", re.ASCII)


class NotUnderstood(ValueError):  # noqa: N818 - named after what happened
    """The text is no constraint. `hint` says what would be."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Operator(Enum):
    """How an attribute is compared."""

    IN = "in"
    NOT_IN = "not in"
    EXISTS = "exists"
    NOT_EXISTS = "not exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """`==` is IN with one value, `!=` is NOT_IN with one."""

    attribute: str
    operator: Operator
    values: tuple[str, ...] = ()
    text: str

    def fulfilled(self, value: str | None) -> bool:
        """Whether a node whose attribute has this value (None: it has no such attribute) fulfils it."""
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.NOT_EXISTS:
                return value is None


def parse(text: str) -> Constraint:
    """The constraint that a text says. Raises NotUnderstood."""
    found = _TEXT.fullmatch(text[:MAX_TEXT])
    if found is None or len(text) > MAX_TEXT:
        raise NotUnderstood(f"{quoting.shown(text)} is no constraint", _HOW)
    attribute, rest = found["attribute"], found["rest"] or ""
    check_attribute(attribute)
    shown, values = " ".join(text.split()), tuple[str, ...]()
    if comparison := _COMPARISON.fullmatch(rest):
        operator = Operator.IN if comparison["sign"] == "==" else Operator.NOT_IN
        values = (_value(comparison["value"]),)
    elif listed := _LIST.fullmatch(rest):
        operator = Operator.IN if listed["sign"] == "in" else Operator.NOT_IN
        values = tuple(_value(part) for part in listed["values"].split(","))
    elif presence := _PRESENCE.fullmatch(rest):
        operator = Operator.EXISTS if presence["sign"] == "exists" else Operator.NOT_EXISTS
    else:
        raise NotUnderstood(f"{quoting.shown(rest)} is no comparison", _HOW)
    return Constraint(attribute=attribute, operator=operator, values=values, text=shown)


def check_attribute(attribute: str) -> None:
    """Raises NotUnderstood for what no node can have."""
    if attribute in FIXED:
        return
    if attribute.startswith(LABELS) and _ATTRIBUTE.fullmatch(attribute.removeprefix(LABELS)):
        return
    if attribute.startswith(LABELS):
        raise NotUnderstood(f"{quoting.shown(attribute)} names no label", "write it like node.labels.zone")
    known = f"known are {', '.join(FIXED)} and {LABELS}KEY"
    raise NotUnderstood(f"nodes have no attribute {quoting.shown(attribute)}", _meant(attribute) or known)


def contradictions(constraints: Sequence[Constraint]) -> Iterator[tuple[int, str]]:
    """Constraints that no node can fulfil together with those before them: which, and why."""
    for index, constraint in enumerate(constraints):
        before = [one for one in constraints[:index] if one.attribute == constraint.attribute]
        if constraint.attribute in FIXED and constraint.operator is Operator.NOT_EXISTS:
            yield index, f"every node has {constraint.attribute}, so that none can fulfil it"
        elif not _possible([constraint]):
            yield index, f"no value is in {constraint.text}"
        elif _possible(before) and not _possible([*before, constraint]):
            yield index, f"no node can fulfil it together with {' and '.join(one.text for one in before)}"


def _possible(constraints: Iterable[Constraint]) -> bool:
    """Whether some value of one attribute, or its absence, fulfils all of them."""
    listed = list(constraints)
    named = {value for one in listed for value in one.values}
    another = "".join(named) + "x"  # a value that none of them names
    return any(all(one.fulfilled(value) for one in listed) for value in (None, another, *named))


def _value(text: str) -> str:
    value = text.strip()
    if not _VALUE.fullmatch(value):
        hint = "write letters, digits and . _ / : @ + - , without quotes" if value else _HOW
        raise NotUnderstood(f"{quoting.shown(value)} is no value of an attribute", hint)
    return value


def _meant(attribute: str) -> str:
    head, dot, rest = attribute.partition(".")
    bare = rest if dot else head
    label, _, key = bare.partition(".")
    if dot and key:
        return f'did you mean "{LABELS}{key}"?' if suggest.nearest(label, ["labels"]) else ""
    meant = suggest.nearest(bare, [known.removeprefix("node.") for known in FIXED])
    if meant:
        return f'did you mean "node.{meant}"?'
    return "" if dot else f'did you mean "{LABELS}{attribute}"?'
