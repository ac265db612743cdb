"""`python -m deploy.local up|status|down|node`: what `orchctl cluster` runs. Exit codes: 0 done, 1 failed, 2 usage."""

import argparse
import sys
from pathlib import Path

from deploy.local import cluster, errors, plan, status
from orchctl.errors import OrchctlError


def main() -> int:
    """The exit code."""
    options = _parser().parse_args()
    folder: Path = options.state or cluster.default_folder(options.name)
    try:
        match options.verb:
            case "up":
                _up(options, folder)
            case "status":
                print(status.table(cluster.existing(folder)))
            case "down":
                print(f"{options.name} is down" if cluster.down(folder) else f"no cluster {options.name} is up")
            case "node" if options.action == "kill":
                cluster.kill_node(folder, options.node)
            case _:
                cluster.start_node(folder, options.node)
    except (errors.LocalError, OrchctlError) as error:
        for line in filter(None, [getattr(error, "detail", "")]):
            print(line, file=sys.stderr)
        print(f"cluster: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted", file=sys.stderr)
        return 130
    return 0


def _up(options: argparse.Namespace, folder: Path) -> None:
    wanted = cluster.Options(
        name=options.name,
        folder=folder,
        nodes=options.nodes,
        control_planes=options.control_planes,
        owner=options.owner_pid,
        network_mode=options.network_mode,
        addresses=options.addresses,
        resources=plan.resources_of(options.resource, nodes=options.nodes),
    )
    the_record = cluster.up(wanted, say=print)
    print(status.table(the_record))
    which = cluster.which(options.name, folder)
    print(f"orchctl talks to it now ({the_record.plan.server}); take it down with: orchctl cluster down{which}")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--name", default=cluster.DEFAULT_NAME, help="which cluster, when there are several (default: local)"
    )
    common.add_argument("--state", type=Path, help="its state folder (default: ~/.local/state/orch/NAME)")
    parser = argparse.ArgumentParser(prog="orchctl cluster", description="A cluster on this machine, to play with.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", parents=[common], help="start it and wait until its nodes are ready")
    up.add_argument("--nodes", type=int, default=3, help=f"how many, up to {plan.MAX_NODES} (default: 3)")
    up.add_argument(
        "--control-planes",
        type=int,
        default=1,
        help=f"how many, each with a member of etcd, up to {plan.MAX_CONTROL_PLANES} (default: 1)",
    )
    up.add_argument(
        "--network-mode",
        choices=plan.NETWORK_MODES,
        default="auto",
        help="how nodes reach each other's tasks (default: auto, which is routes on the one segment that there is)",
    )
    up.add_argument(
        "--addresses",
        choices=plan.ADDRESSES,
        default="ipv4",
        help="which families tasks and services have addresses of (default: ipv4)",
    )
    up.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="NODE:NAME=ID[,ID…]",
        help="things that a node has a number of, such as n1:gpu=0,1",
    )
    up.add_argument("--owner-pid", type=int, default=0, help="take it down when this process ends, however it ends")
    verbs.add_parser("status", parents=[common], help="its processes, nodes and addresses")
    verbs.add_parser("down", parents=[common], help="stop it and remove everything of it")
    node = verbs.add_parser("node", parents=[common], help="pull a machine's plug, or put it in again")
    node.add_argument("action", choices=["kill", "start"])
    node.add_argument("node")
    return parser


if __name__ == "__main__":
    sys.exit(main())
