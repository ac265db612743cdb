"""Unified, coloured differences between what is there and what is applied, in the fields that people write."""

from manifests import wish
from orchctl import terminal, words
from protos import kinds
from protos.orch.v1 import control_pb2 as control

_COLOURS = {"+": terminal.GREEN, "-": terminal.RED, "@": terminal.CYAN}


def of(result: control.ApplyResult) -> tuple[str, ...]:
    """The lines of the difference that a result makes; none when there is none."""
    before = kinds.unwrap(result.before) if result.HasField("before") else None
    gone = result.action == control.APPLY_ACTION_PRUNED
    after = kinds.unwrap(result.object)
    return wish.difference(before, None if gone else after, words.short(after))


def show(result: control.ApplyResult) -> bool:
    """Prints the difference; whether there is one."""
    lines = of(result)
    for line in lines:
        colour = _COLOURS.get(line[:1])
        if colour is None:
            terminal.say(line)
        else:
            terminal.say_in(colour, line)
    return bool(lines)
