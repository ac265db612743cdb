"""Takes the node off this machine: `orchctl node leave`.

    no tasks? ─► orch-agent ends ─► what it has made ─► its certificate ─► orch-tasks ends ─► /etc/orch/agent.yaml

The rule: the file goes last, since it says where everything is. So a departure that broke off, wherever, is ended by
the same command. A control plane on the machine is another matter, and stays.
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import leave as departure
from agent import options as agent_options
from agent.adapters.departure import InTheWay
from agent.adapters.layout import Layout
from deploy.host import services, settings
from deploy.host.errors import HostError
from deploy.host.places import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. `stop_agent`: also where there is no systemd to end it."""

    kill_tasks: bool = False
    stop_agent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """Where the agent has what, as its file says."""

    name: str
    layout: Layout
    trust: Path
    cgroup_parent: str


def leave(wish: Wish, places: Places) -> str:
    """Does it, and returns what to tell the person. Raises HostError; while a task is in the way nothing is touched."""
    path = places.configuration / "agent.yaml"
    node = _found(path, places)
    try:
        _take_away(node, wish, places)
        path.unlink(missing_ok=True)
    except InTheWay as error:
        raise HostError(str(error)) from error
    except departure.FAILURES as error:
        raise HostError(str(error), hint="mend that, and try again: what is left is taken away then") from error
    called = node.name or "NAME"
    return (
        "the node is off this machine; the cluster forgets it, once it has noticed, by\n"
        f"  orchctl wait node {called} --for=status.state=down && orchctl delete node {called}"
    )


def _found(path: Path, places: Places) -> _Node:
    parser = agent_options.parser()
    said = settings.there(path, parser)
    group = services.TASKS_GROUP if places.managed else parser.get_default("cgroup_parent")
    state = Path(_value(said, "state", places.agent))
    node = _Node(
        name=_value(said, "name", ""),
        layout=Layout(state, Path(_value(said, "run-dir", places.run))),
        trust=Path(_value(said, "trust", state / "trust")),
        cgroup_parent=_value(said, "cgroup-parent", group),
    )
    if not said and not (state.is_dir() and any(state.iterdir())):
        raise HostError(
            f"this machine is no node: neither {path} nor anything in {state} is there",
            hint="the node of an agent that you started yourself is named by --state DIR",
        )
    return node


def _value(said: Mapping[str, Sequence[str]], key: str, otherwise: object) -> str:
    return said[key][0] if said.get(key) else str(otherwise)


def _take_away(node: _Node, wish: Wish, places: Places) -> None:
    """All but the file. Raises HostError, and one of the departure's FAILURES."""
    if not wish.kill_tasks:
        departure.check_tasks(node.layout)
    if places.managed:
        services.end([services.AGENT])
    # An earlier try may have come so far that nothing but the certificate is left, by which no folder is known as an
    # agent's.
    if any(path.exists() for path in node.layout.own) or not node.layout.state.is_dir():
        departure.leave(
            node.layout, cgroup_parent=node.cgroup_parent, stop_agent=wish.stop_agent, kill_tasks=wish.kill_tasks
        )
    if node.trust.exists():
        shutil.rmtree(node.trust)
    with contextlib.suppress(OSError):  # somebody else has something in it
        node.layout.state.rmdir()
    if places.managed:
        services.end([services.TASKS])
