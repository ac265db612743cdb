"""Asking before something is pruned.

The rule: nothing ends that was not shown to whoever agreed. What somebody puts into the stack meanwhile refuses the
apply.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchctl import client, errors, terminal, words
from protos import kinds
from protos.orch.v1 import control_pb2 as control

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


def agree(stub: "ControlStub", request: control.ApplyRequest, *, yes: bool) -> Sequence[str]:
    """The ids of what goes, once that is agreed to. NotDone when it is not."""
    look = control.ApplyRequest()
    look.CopyFrom(request)
    look.dry_run = True
    response = stub.Apply(look, timeout=client.APPLY_TIMEOUT_S)
    doomed = [kinds.unwrap(one.object) for one in response.results if one.action == control.APPLY_ACTION_PRUNED]
    if doomed and not yes:
        _ask([words.short(one) for one in doomed], doomed[0].meta.stack)
    return [one.meta.id for one in doomed]


def _ask(names: Sequence[str], stack: str) -> None:
    if not sys.stdin.isatty():
        raise errors.InvalidInput(
            f"of stack {stack} these would be deleted, and there is nobody to ask: {', '.join(names)}",
            hint="--yes agrees; --dry-run shows what would change",
        )
    terminal.note(f"Not in the files of stack {stack} any more, and to be deleted:")
    for name in names:
        terminal.note(f"  {name}")
    if not click.confirm("Delete them?", err=True):
        raise errors.NotDone("nothing was changed")
