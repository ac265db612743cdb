"""What the verbs of `orchctl` become that change what this machine is.

init, restore, controlplane    orchctl cluster init, restore, join
node, leave                    orchctl node join, leave
forget                         install.sh uninstall
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.host import checks
from deploy.host.errors import HostError
from deploy.host.places import Places
from orchctl.errors import OrchctlError
from trust import errands, joining
from trust.folder import NotTrusted

if TYPE_CHECKING:
    from deploy.host import first


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says what to do."""
    options = _parser().parse_args(arguments)
    try:
        checks.root(options.said)
        print(_VERBS[options.verb](options))
    except (HostError, joining.NotJoined, OrchctlError, NotTrusted) as error:
        detail = getattr(error, "detail", "") or "\n".join(getattr(error, "details", ()))
        lines = [*(f"  {line}" for line in detail.splitlines()), f"orchctl: {options.said}: {error}"]
        hint = getattr(error, "hint", "")
        sys.stderr.write("\n".join([*lines, *([f"hint: {hint}"] if hint else [])]) + "\n")
        return 1
    return 0


def _first(options: argparse.Namespace) -> str:
    from deploy.host import first

    return first.init(_founding(options), Places())


def _restore(options: argparse.Namespace) -> str:
    from deploy.host import restore

    return restore.restore(_founding(options), options.path, Places())


def _founding(options: argparse.Namespace) -> "first.Wish":
    from deploy.host import controlplane, first  # a node has no use for a control plane's half second of imports

    machine = controlplane.Wish(name=options.name, address=options.address, server=options.server)
    return first.Wish(machine=machine, context=options.context, admin=options.admin, etcd=options.about_etcd)


def _node(options: argparse.Namespace) -> str:
    with errands.Workshop() as workshop:  # it loads what it needs while this program does
        from deploy.host import node

        wish = node.Wish(
            token=options.token, server=options.server, door=options.door, name=options.name, address=options.address
        )
        return node.join(wish, Places(), workshop)


def _another(options: argparse.Namespace) -> str:
    from deploy.host import another

    wish = another.Wish(
        token=options.token, server=options.server, door=options.door, name=options.name, address=options.address
    )
    return another.join(wish, Places())


def _leave(options: argparse.Namespace) -> str:
    from deploy.host import leaving

    return leaving.leave(leaving.Wish(kill_tasks=options.kill_tasks, stop_agent=options.stop_agent), Places())


def _forget(_options: argparse.Namespace) -> str:
    from deploy.host import forgetting

    return forgetting.forget(Places())


_VERBS: Mapping[str, Callable[[argparse.Namespace], str]] = {
    "init": _first,
    "restore": _restore,
    "controlplane": _another,
    "node": _node,
    "leave": _leave,
    "forget": _forget,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchctl", description="What this machine is in a cluster.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="", help="what it is called (default: the host's name)")
    common.add_argument("--address", default="", help="its own (default: the one on the way to the others)")
    common.add_argument("--server", default="", help="where the control plane is reached")
    for verb, said in (("init", "cluster init"), ("restore", "cluster restore")):
        founds = verbs.add_parser(verb, parents=[common])
        if verb == "restore":
            founds.add_argument("path", type=Path, help="the backup")
        founds.add_argument("--context", default="default", help="what the cluster is called here")
        founds.add_argument("--admin", default="", help="the first admin (default: whoever says it)")
        founds.add_argument("--about-etcd", action="append", default=[], help="an argument about an etcd that there is")
        founds.set_defaults(said=said)
    for verb, said in (("node", "node join"), ("controlplane", "cluster join")):
        joins = verbs.add_parser(verb, parents=[common])
        joins.add_argument("--token", required=True, help="the token, @FILE, or - to read it")
        joins.add_argument("--door", default="", help="the door, when it is not at port 7401 of the server")
        joins.set_defaults(said=said)
    leaves = verbs.add_parser("leave")
    leaves.add_argument("--kill-tasks", action="store_true", help="kill the tasks that run here")
    leaves.add_argument("--stop-agent", action="store_true", help="end the agent, where there is no systemd")
    leaves.set_defaults(said="node leave")
    verbs.add_parser("forget").set_defaults(said="uninstall")
    return parser


if __name__ == "__main__":
    sys.exit(main())
