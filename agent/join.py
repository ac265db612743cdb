"""Joins this machine to a cluster: `python -m agent.join`, behind `orchctl node join`.

One rule: the node's id and its certificate are made together, in the agent's state folder, before an agent runs there.
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.adapters import whole
from agent.adapters.layout import Layout
from trust import joining
from trust.core import identity
from trust.core.identity import Role
from trust.folder import Folder, NotTrusted


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why nothing was done."""
    options = _parser().parse_args(arguments)
    state = Path(options.state).absolute()
    trust = Path(options.trust).absolute() if options.trust else state / "trust"
    folder = Folder(trust)
    try:
        token = joining.token_of(options.token, Role.NODE)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        node_id = whole.node_id(Layout(state, None))
        wish = joining.Wish(name=node_id, node_name=options.name)
        joined = joining.join(options.door, token, wish, folder)
    except (joining.NotJoined, NotTrusted, OSError) as error:
        hint = f"\nhint: {error.hint}" if isinstance(error, joining.NotJoined) and error.hint else ""
        sys.stderr.write(f"orchctl: the node {options.name} did not join: {error}{hint}\n")
        return 1
    who = joined.own.identity
    sys.stdout.write(
        f"node {options.name} ({who.name}) has joined the cluster {who.cluster}\n"
        f"start its agent with --name {options.name} --state {state} --trust {trust}\n"
    )
    folder.end_join()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchctl node join", description="Joins this machine to a cluster.")
    parser.add_argument("--token", required=True, help="the token, @FILE, or - to read it")
    parser.add_argument("--door", required=True, metavar="HOST:PORT", help="the door of a control plane")
    parser.add_argument("--state", required=True, help="the agent's state folder")
    parser.add_argument("--trust", help="where the certificate goes (default: STATE/trust)")
    parser.add_argument("--name", default=_hostname(), help="what the node is called (default: the host's name)")
    return parser


def _hostname() -> str:
    name = socket.gethostname().partition(".")[0].lower()
    return name if identity.NAME.fullmatch(name) else "node"


if __name__ == "__main__":
    sys.exit(main())
