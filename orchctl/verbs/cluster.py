"""`orchctl cluster`: a cluster on this machine. A door to `python -m deploy.local`, which does the work."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from orchctl import door

T = TypeVar("T")


def _which(function: Callable[..., T]) -> Callable[..., T]:
    """Adds the options that say which cluster is meant."""
    name = click.option("--name", default="local", show_default=True, help="Which one, when there are several.")
    state = click.option("--state", type=click.Path(path_type=Path), help="Its state folder.")
    return name(state(function))


@click.group()
def command() -> None:
    """Start and stop a cluster on this machine: one control plane, and nodes in namespaces of their own.

    \b
    Examples:
      orchctl cluster up --nodes 3
      orchctl cluster up --ipv6
      orchctl cluster status
      orchctl cluster down
    """


@command.command()
@click.option("--nodes", type=click.IntRange(min=1), default=3, show_default=True, help="How many nodes.")
@click.option(
    "--network-mode",
    type=click.Choice(["auto", "routes", "vxlan"]),
    default="auto",
    show_default=True,
    help="How nodes reach each other's tasks.",
)
@click.option("--ipv6", "addresses", flag_value="dual", help="Tasks and services have IPv6 addresses, too.")
@click.option("--ipv6-only", "addresses", flag_value="ipv6", help="They have no others.")
@click.option(
    "--resource",
    "resources",
    metavar="NODE:NAME=ID[,ID…]",
    multiple=True,
    help="Things that a node has a number of, such as n1:gpu=0,1. May be repeated.",
)
@click.option("--owner-pid", type=click.IntRange(min=1), help="Go down when this process ends, however it ends.")
@_which
def up(
    *,
    nodes: int,
    network_mode: str,
    addresses: str | None,
    resources: tuple[str, ...],
    owner_pid: int | None,
    name: str,
    state: Path | None,
) -> None:
    """Start it, wait until its nodes are ready, and make it the current context."""
    given = [f"--resource={resource}" for resource in resources]
    owner = [f"--owner-pid={owner_pid}"] if owner_pid else []
    which = [f"--addresses={addresses}"] if addresses else []
    _run("up", name, state, f"--nodes={nodes}", f"--network-mode={network_mode}", *which, *given, *owner)


@command.command()
@_which
def status(name: str, state: Path | None) -> None:
    """Show its processes, nodes and addresses."""
    _run("status", name, state)


@command.command()
@_which
def down(name: str, state: Path | None) -> None:
    """Stop it and remove everything of it."""
    _run("down", name, state)


@command.command()
@click.argument("action", type=click.Choice(["kill", "start"]))
@click.argument("node")
@_which
def node(action: str, node: str, name: str, state: Path | None) -> None:
    """Pull a machine's plug (kill), or put it in again (start)."""
    _run("node", name, state, action, node)


def _run(verb: str, name: str, state: Path | None, *arguments: str) -> NoReturn:
    where = [f"--state={state}"] if state else []
    door.become("deploy.local", verb, f"--name={name}", *where, *arguments)
