"""`orchctl node ls`, `drain` and so on: what the control plane is asked for about its nodes."""

from collections.abc import Sequence

import click

from orchctl import (
    client,
    complete,
    conditions,
    errors,
    metadata,
    options,
    output,
    terminal,
    waiting,
    words,
)
from orchctl.progress import Target
from orchctl.verbs import describe, get
from protos import losses, schema
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

_names = click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=complete.nodes)


commands = click.Group()


@commands.command()
@output.option
@click.option("-w", "--watch", is_flag=True, help="Go on with a row for each change.")
@options.with_settings
def ls(settings: options.Settings, form: str | None, watch: bool) -> None:
    """List the nodes."""
    get.show(settings, get.Query(what=("node",), form=form or "", watch=watch))


@commands.command()
@_names
@options.with_settings
def inspect(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Show nodes in full, with their tasks."""
    describe.show(settings, ("node", *names))


@commands.command()
@_names
@options.with_settings
def pause(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Give nodes no new tasks. Those that they have go on."""
    _make(settings, names, pb.AVAILABILITY_PAUSE, "paused: it keeps its tasks and gets no new ones")


@commands.command()
@_names
@options.with_settings
def activate(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Let nodes take tasks again."""
    _make(settings, names, pb.AVAILABILITY_ACTIVE, "active: it takes tasks")


commands.add_command(pause, "cordon")
commands.add_command(activate, "uncordon")


@commands.command()
@_names
@click.option(
    "--deadline", "deadline_ms", type=options.DURATION, help="Stop what is left after this time all the same."
)
@click.option("-d", "--detach", is_flag=True, help="Return at once, without waiting.")
@options.timeout
@options.with_settings
def drain(
    settings: options.Settings, names: tuple[str, ...], deadline_ms: int | None, detach: bool, timeout_ms: int
) -> None:
    """Replace the tasks of nodes on others, give them no new ones, and wait until they have none.

    A task leaves when another works in its place. Where a service stops first, no more leave at a time than its
    `disruption` allows. Said again, the deadline counts from now; without --deadline there is none.

    \b
    Examples:
      orchctl node drain n2
      orchctl node drain n2 --deadline 10m
      orchctl node drain n2 --deadline 0s      stop everything there now
    """
    targets = []
    for name in names:
        request = control.UpdateNodeRequest(node=name, availability=pb.AVAILABILITY_DRAIN, deadline_ms=deadline_ms)
        targets.append(Target.of(_update(settings, request)))
        terminal.say(f"node/{name} draining: its tasks are replaced on other nodes")
    if not detach:
        waiting.until(settings.server, dict.fromkeys(targets, conditions.drained), timeout_ms, "drained")


@commands.command()
@_names
@options.with_settings
def lost(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Say of nodes that are out of reach that they do not come back: their tasks are replaced on others now.

    Needed when more than half of the nodes vanished together: then nothing is replaced by itself, since it is rather
    the network. Make sure that the machines are off: on one that is only cut off, containers go on. Fenced tasks wait
    for their time all the same. A node that returns nevertheless is taken back.

    \b
    Examples:
      orchctl node lost n2 n3
    """
    for name in names:
        node = _update(settings, control.UpdateNodeRequest(node=name, lost=True))
        if not losses.is_final(node):
            raise errors.NotDone(
                f"node/{name}: the control plane is of a release that does not know this",
                hint=f"upgrade it, or `orchctl delete node {name}` once it is DOWN",
            )
        terminal.say(f"node/{name} given up: its tasks are replaced on other nodes")


@commands.command()
@click.argument("name", shell_complete=complete.nodes)
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE…|KEY-…")
@options.with_settings
def label(settings: options.Settings, name: str, changes: tuple[str, ...]) -> None:
    """Set labels of a node, or remove them with a minus behind the key."""
    metadata.change(settings, [(words.kind("node"), name)], changes, "labels", overwrite=True)


@commands.command()
@click.argument("name", shell_complete=complete.nodes)
@click.argument("changes", nargs=-1, required=True, metavar="KEY[=VALUE]:EFFECT…|KEY[:EFFECT]-…")
@options.with_settings
def taint(settings: options.Settings, name: str, changes: tuple[str, ...]) -> None:
    """Keep tasks away that do not tolerate it, or remove taints with a minus behind them.

    EFFECT is no-schedule (no new tasks), prefer-no-schedule (only when no other node takes them) or no-execute (those
    that are there leave, too).

    \b
    Examples:
      orchctl node taint n1 gpu=a100:no-schedule
      orchctl node taint n1 gpu-
    """
    set_taints, removed = parse_taints(changes)
    _update(settings, control.UpdateNodeRequest(node=name, set_taints=set_taints, remove_taints=removed))
    terminal.say(f"node/{name} tainted")


def parse_taints(changes: Sequence[str]) -> tuple[Sequence[pb.Taint], Sequence[str]]:
    """`gpu=a100:no-schedule old-` → the taints to set, and what names those to remove."""
    effects = schema.enum_words(pb.TaintEffect.DESCRIPTOR)
    set_taints, removed = [], []
    for change in changes:
        if change.endswith("-") and len(change) > 1 and "=" not in change:
            removed.append(change[:-1])
            continue
        mark, colon, effect = change.rpartition(":")
        key, _, value = mark.partition("=")
        if not colon or not key or effect not in effects:
            raise errors.InvalidInput(
                f"not a change of a taint: {change!r}",
                hint=f"write it like gpu=a100:no-schedule or gpu- ; effects are {', '.join(effects)}",
            )
        set_taints.append(pb.Taint(key=key, value=value, effect=effects[effect]))  # type: ignore[arg-type]  # its number
    for taint in set_taints:
        names = (taint.key, f"{taint.key}:{schema.enum_word(pb.TaintEffect.DESCRIPTOR, taint.effect)}")
        if both := next((name for name in names if name in removed), ""):
            raise errors.InvalidInput(f"taint {both!r} is set and removed at once")
    return set_taints, removed


def _make(settings: options.Settings, names: Sequence[str], availability: pb.Availability.ValueType, told: str) -> None:
    for name in names:
        _update(settings, control.UpdateNodeRequest(node=name, availability=availability))
        terminal.say(f"node/{name} {told}")


def _update(settings: options.Settings, request: control.UpdateNodeRequest) -> pb.Node:
    with client.connect(settings.server) as stub:
        return stub.UpdateNode(request, timeout=client.CALL_TIMEOUT_S).node
