"""What an agent is told: on its command line, or in the file that `--config` names.

One rule: nothing is imported here that takes time, since the file is read before the agent is.
"""

import argparse
import ipaddress
import re
from collections.abc import Sequence

from agent import imageoptions
from agent.core import users
from protos import arguments as reading
from telemetry import formats

METRICS_PORT = 7403
"""Where Prometheus reads metrics, usually."""
LONGEST_ABSENCE_S = 600
"""As `protos.absence`, which takes time to import."""
RESOURCE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""The name of a generic resource, as manifests write it."""
RESOURCE_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}", re.ASCII)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. Ends the process with 2 when they make no sense."""
    reader = parser()
    options = reader.parse_args(arguments)
    _check_secrecy(reader, options)
    return options


def parser() -> argparse.ArgumentParser:
    """All of them."""
    made = argparse.ArgumentParser(
        prog="orch-agent", description="Keeps the containers of one node running.", allow_abbrev=False
    )
    made.add_argument(
        "--config", metavar="FILE", help="these options, a key each; what is said here wins over what is said there"
    )
    made.add_argument("--name", required=True, help="the node's name")
    made.add_argument("--server", required=True, help="addresses of the control plane, HOST:PORT[,HOST:PORT…]")
    made.add_argument(
        "--address",
        required=True,
        type=_address,
        help="the address at which other nodes reach this one, of IPv4 or IPv6, as all nodes have it",
    )
    made.add_argument("--state", required=True, help="the folder for everything that survives the agent")
    made.add_argument(
        "--trust",
        help="the folder that `orchctl node join` has filled; without it --server is a socket of this machine, such as "
        "unix:/run/orch.sock, and other nodes get no images from here",
    )
    made.add_argument("--run-dir", help="the runtime's folder, best on a tmpfs; STATE/run when left out")
    made.add_argument("--cgroup-parent", default="/orch", help="the cgroup below which containers get theirs")
    made.add_argument(
        "--ids",
        default=users.DEFAULT,
        type=_ids,
        help="FIRST:COUNT, the user and group ids of this node that containers get, 65536 each; "
        "nobody else may have any of them (default: %(default)s)",
    )
    made.add_argument(
        "--resolv-conf",
        default="/etc/resolv.conf",
        help="the file with the name servers that are asked for names outside the cluster (default: %(default)s)",
    )
    made.add_argument(
        "--trusted",
        action="append",
        default=[],
        type=_range,
        help="a range outside the cluster, such as 10.0.0.5/32, that reaches tasks by their own addresses; "
        "all others reach published ports alone",
    )
    made.add_argument(
        "--back-within",
        default="30s",
        type=_absence,
        metavar="DURATION",
        help="when it ends to be started again, it tells the leader that it is back within this time, up to 10m, and "
        "no task of this node is replaced before that; 0s: it says nothing (default: %(default)s)",
    )
    _add_node(made)
    imageoptions.add(made)
    _add_telling(made)
    return made


def _add_node(made: argparse.ArgumentParser) -> None:
    """What the node has."""
    made.add_argument("--label", action="append", default=[], type=_label, help="NAME=VALUE, for a new node")
    made.add_argument(
        "--resource",
        action="append",
        default=[],
        type=_resource,
        help="NAME=ID[,ID…], things that the node has a number of and tasks may reserve, such as gpu=0,1",
    )


def _add_telling(made: argparse.ArgumentParser) -> None:
    """How it tells of itself."""
    made.add_argument(
        "--metrics-port",
        default=METRICS_PORT,
        type=int,
        metavar="PORT",
        help="where Prometheus reads metrics, at --address; 0: nowhere (default: %(default)s)",
    )
    made.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning"],
        help="from which level on it tells what happens (default: %(default)s)",
    )
    made.add_argument("--log-format", default="auto", choices=formats.FORMATS, help=formats.HELP)


def _check_secrecy(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What leaves this machine is spoken over TLS."""
    if options.trust:
        return
    options.blob_port = options.metrics_port = 0
    for server in options.server.split(","):
        if not server.startswith("unix:"):
            parser.error(f"{server} would be spoken to in the clear; give --trust, which `orchctl node join` fills")


def _ids(text: str) -> users.Ids:
    try:
        return users.Ids.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _absence(text: str) -> float:
    wanted_s = reading.seconds(text)
    if wanted_s > LONGEST_ABSENCE_S:
        raise argparse.ArgumentTypeError(f"{text} is too long: the leader waits for 10m at most")
    return wanted_s


def _range(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _resource(text: str) -> tuple[str, list[str]]:
    name, _, ids = text.partition("=")
    listed = ids.split(",")
    if not RESOURCE.fullmatch(name) or not all(map(RESOURCE_ID.fullmatch, listed)) or len(set(listed)) < len(listed):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=ID[,ID…] without an id twice, such as gpu=0,1")
    return name, listed


def _label(text: str) -> str:
    if "=" not in text[1:]:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    return text
