"""Takes everything of the agent's off a machine that is to be a node no more.

    python -m agent.leave --state DIR [--run-dir DIR] [--cgroup-parent GROUP] [--stop-agent] [--kill-tasks]

Two rules: nothing is touched while the agent or a task runs, unless that was asked for; and what is not the agent's is
left alone. Whatever is left when it fails is taken away by the next try.

    the agent ─► containers ─► pinned namespaces ─► rules, links, routes ─► kernel parameters ─► control groups ─► files
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from agent.adapters import departure, network
from agent.adapters.departure import InTheWay
from agent.adapters.layout import Layout
from agent.adapters.sysctls import Parameters
from runtime.errors import ContainerError

FAILURES = (InTheWay, ContainerError, OSError, subprocess.SubprocessError)
"""What may come of it; the text says what is in the way."""
NAMED = 5
"""So many tasks are named when they are in the way."""


def main(arguments: list[str] | None = None) -> None:
    """Leave, and say what was taken away."""
    options = _options(arguments)
    if os.geteuid() != 0:
        sys.exit("orch-agent: only root can take a node off a machine")
    layout = Layout(Path(options.state).absolute(), Path(options.run_dir).absolute() if options.run_dir else None)
    try:
        leave(
            layout,
            cgroup_parent=options.cgroup_parent,
            stop_agent=options.stop_agent,
            kill_tasks=options.kill_tasks,
        )
    except FAILURES as error:
        sys.exit(f"orch-agent: {error}")


def leave(layout: Layout, *, cgroup_parent: str, stop_agent: bool = False, kill_tasks: bool = False) -> None:
    """Takes everything away, and says what. Raises one of FAILURES; what is left then is taken away by the next try."""
    if not layout.state.is_dir():  # it was all removed, or never was
        _take_away(layout, cgroup_parent, kill_tasks=kill_tasks)
        return
    _check(layout)
    with departure.locked(layout, stop_agent=stop_agent):
        _take_away(layout, cgroup_parent, kill_tasks=kill_tasks)


def check_tasks(layout: Layout) -> None:
    """Raises InTheWay when a task runs here."""
    running = departure.tasks(layout)
    if running:
        named = ", ".join(running[:NAMED]) + (", …" if len(running) > NAMED else "")
        raise InTheWay(
            f"{len(running)} task{'s run' if len(running) > 1 else ' runs'} here ({named}); "
            "have the node drained first, or say --kill-tasks"
        )


def _take_away(layout: Layout, cgroup_parent: str, *, kill_tasks: bool) -> None:
    if not kill_tasks:
        check_tasks(layout)
    _say_number("containers", departure.remove_containers(layout))
    _say_number("mounts", departure.unmount(layout))
    network.leave()
    _say("removed: rules, links and routes")
    for name in Parameters(layout.kernel).put_back():
        _say(f"put back: {name}")
    departure.remove_groups(cgroup_parent)
    departure.remove_files(layout)
    _say(f"removed: control groups below {cgroup_parent}, files in {layout.state}")


def _check(layout: Layout) -> None:
    """A folder that something else lives in is not taken for an agent's because of a slip of the hand."""
    if any(layout.state.iterdir()) and not any(path.exists() for path in layout.own):
        raise InTheWay(f"{layout.state} is not the state folder of an agent")


def _say_number(what: str, number: int) -> None:
    if number:
        _say(f"removed: {number} {what}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="orch-agent-leave", description="Takes a node off this machine.")
    parser.add_argument("--state", required=True, help="the agent's state folder")
    parser.add_argument("--run-dir", help="the runtime's folder; STATE/run when left out")
    parser.add_argument("--cgroup-parent", default="/orch", help="the cgroup below which containers have theirs")
    parser.add_argument("--stop-agent", action="store_true", help="end the agent if it runs")
    parser.add_argument("--kill-tasks", action="store_true", help="kill the tasks that run here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
