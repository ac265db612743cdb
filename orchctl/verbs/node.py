"""`orchctl node`: the machines of the cluster."""

from collections.abc import Sequence

import click

from orchctl import (
    client,
    complete,
    conditions,
    door,
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


@click.group()
def command() -> None:
    """List, inspect, pause and drain nodes.

    \b
    Examples:
      orchctl node ls
      orchctl node drain n2 --deadline 10m
      orchctl node uncordon n2
      orchctl node lost n2
      orchctl node label n1 disk=ssd zone-
      orchctl node doctor --door 10.0.0.1:7401
      orchctl node leave --state /var/lib/orch
      orchctl node taint n1 gpu=a100:no-schedule
    """


@command.command()
@output.option
@click.option("-w", "--watch", is_flag=True, help="Go on with a row for each change.")
@options.with_settings
def ls(settings: options.Settings, form: str | None, watch: bool) -> None:
    """List the nodes."""
    get.show(settings, get.Query(what=("node",), form=form or "", watch=watch))


@command.command()
@_names
@options.with_settings
def inspect(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Show nodes in full, with their tasks."""
    describe.show(settings, ("node", *names))


@command.command()
@_names
@options.with_settings
def pause(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Give nodes no new tasks. Those that they have go on."""
    _make(settings, names, pb.AVAILABILITY_PAUSE, "paused: it keeps its tasks and gets no new ones")


@command.command()
@_names
@options.with_settings
def activate(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Let nodes take tasks again."""
    _make(settings, names, pb.AVAILABILITY_ACTIVE, "active: it takes tasks")


command.add_command(pause, "cordon")
command.add_command(activate, "uncordon")


@command.command()
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


@command.command()
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


@command.command()
@click.argument("name", shell_complete=complete.nodes)
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE…|KEY-…")
@options.with_settings
def label(settings: options.Settings, name: str, changes: tuple[str, ...]) -> None:
    """Set labels of a node, or remove them with a minus behind the key."""
    metadata.change(settings, [(words.kind("node"), name)], changes, "labels", overwrite=True)


@command.command()
@click.option("--token", required=True, help="The token, or @FILE: arguments are seen by everybody on the machine.")
@click.option("--server", metavar="HOST[:PORT]", default="", help="Where the control plane is reached.")
@click.option("--door", "at", metavar="HOST:PORT", default="", help="Its door.  [default: port 7401 of --server]")
@click.option("--name", default="", help="What the node is called.  [default: the host's name]")
@click.option("--address", default="", help="Where other nodes reach it.  [default: its own on the way to --server]")
@click.option(
    "--state", type=click.Path(), help="Only get a certificate, into this state folder of an agent that you start."
)
def join(*, token: str, server: str, at: str, name: str, address: str, state: str | None) -> None:
    """Make this machine a node: certificate, configuration, and the agent's service. As root, on the machine itself.

    A join that did not come to its end may be repeated with the same token.

    \b
    Examples:
      orchctl node join --server 10.0.0.1 --token @token
      orchctl node join --server 10.0.0.1 --token @token --name n7 --address 10.0.1.7
    """
    if state is None and server:
        said = {"--server": server, "--door": at, "--name": name, "--address": address}
        door.become("deploy.host", "node", f"--token={token}", *(f"{key}={text}" for key, text in said.items() if text))
    if state is None or not at:
        raise click.UsageError(
            "say where the control plane is with --server HOST; or, to start the agent yourself, "
            "its door with --door HOST:PORT and the agent's folder with --state DIR"
        )
    named = [f"--name={name}"] if name else []
    door.become("agent.join", f"--token={token}", f"--door={at}", f"--state={state}", *named)


@command.command()
@click.option("--state", type=click.Path(), help="The agent's state folder.  [default: /var/lib/orch-agent]")
@click.option("--trust", type=click.Path(), help="The folder with its certificate.  [default: STATE/trust]")
@click.option("--address", help="The address at which other nodes reach this one.")
@click.option("--door", "at", metavar="HOST:PORT", help="The door of a control plane, to compare clocks with.")
@click.option("--ids", metavar="FIRST:COUNT", help="The ids that containers get, as the agent was told.")
@click.option("--blob-port", metavar="PORT", help="As the agent was told.")
@click.option("--metrics-port", metavar="PORT", help="As the agent was told.")
@click.option("--resolv-conf", type=click.Path(), help="As the agent was told.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="The same for programs.")
def doctor(at: str | None, **said: str | None) -> None:
    """Look at this machine as a node, before it joins and after. As root, on the machine itself.

    A line for everything that was looked at: `ok`, `warning` or `failed`, what that means, and what to do. Nothing is
    changed. The exit code is 1 when something has failed.

    \b
    Examples:
      orchctl node doctor
      orchctl node doctor --address 10.0.0.11 --door 10.0.0.1:7401
    """
    options = {**said, "door": at}
    door.become("agent.doctor", *(f"--{name.replace('_', '-')}={text}" for name, text in options.items() if text))


@command.command()
@click.option("--state", required=True, type=click.Path(), help="The agent's state folder.")
@click.option("--run-dir", type=click.Path(), help="The runtime's folder, if the agent was given one.")
@click.option("--cgroup-parent", default="/orch", show_default=True, help="The cgroup that the agent was given.")
@click.option("--stop-agent", is_flag=True, help="End the agent if it runs.")
@click.option("--kill-tasks", is_flag=True, help="Kill the tasks that run here.")
def leave(state: str, run_dir: str | None, cgroup_parent: str, stop_agent: bool, kill_tasks: bool) -> None:
    """Take the node off this machine: containers, network, control groups and files. As root, on the machine itself.

    Refuses while the agent or a task runs, unless told what to do. May be run again. Have the node drained first.
    """
    said = {"--stop-agent": stop_agent, "--kill-tasks": kill_tasks}
    where = [f"--state={state}", f"--cgroup-parent={cgroup_parent}", *([f"--run-dir={run_dir}"] if run_dir else [])]
    door.become("agent.leave", *where, *(option for option, is_said in said.items() if is_said))


@command.command()
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
