"""Looks at this machine as a node: `python -m agent.doctor`, behind `orchctl node doctor`, before it joins and after.

Two rules. Nothing is changed, and what is tried is taken away again. And every check has its line, so that what is well
is seen to have been looked at; the exit code is 1 when something has failed.

The agent that is looked at is the one that is installed here, by the file that tells it what it is told; another one is
named by its state folder.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent import imageoptions, node
from agent import options as agent_options
from agent.adapters import dns, machine
from agent.adapters.layout import Layout
from agent.core import diagnosis, overlay, users
from agent.core.diagnosis import Port
from manifests import configuration
from manifests.documents import Source
from manifests.mistakes import InvalidManifest
from protos import findings
from protos.orch.v1 import control_pb2 as pb
from runtime import syscalls
from trust import joining
from trust.core.identity import Malformed, Role
from trust.folder import Folder, NotTrusted

DEFAULT_STATE = "/var/lib/orch/agent"
CONFIGURATION = Path("/etc/orch/agent.yaml")
"""Of the agent that is installed here, once it has joined."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options, found = told(arguments)
    found.extend(examine(options))
    if options.output == "json":
        sys.stdout.write(json.dumps(findings.documents(found), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in findings.lines(found)))
        sys.stderr.write(f"{findings.summary(found)}\n")
    return 1 if findings.has_failed(found) else 0


def told(
    arguments: Sequence[str] | None, installed: Path = CONFIGURATION
) -> tuple[argparse.Namespace, list[pb.Finding]]:
    """What was said, and where nothing was, what stands in the agent's file; and how that file was found.

    Without `--config` it is that of the `installed` agent, if there is one and `--state` names no other.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    path = Path(options.config) if options.config else None if options.state else installed
    found = []
    if path is not None and (options.config or path.exists()):
        found.append(_read(path, parser))
        options = parser.parse_args(arguments)
    options.state = options.state or DEFAULT_STATE
    return options, found


def _read(path: Path, parser: argparse.ArgumentParser) -> pb.Finding:
    """Makes what the file says the parser's defaults."""
    try:
        said = configuration.values(agent_options.parser(), Source(name=str(path), text=path.read_bytes()))
    except (OSError, InvalidManifest) as error:
        text = f"cannot read {path}: {error.strerror}" if isinstance(error, OSError) else str(error).partition("\n")[0]
        return findings.failed("configuration", f"the agent does not start: {text}", f"mend {path}")
    known = configuration.options(parser)
    parser.set_defaults(**{known[key].dest: texts[-1] for key, texts in said.items() if key in known and texts})
    return findings.ok("configuration", f"{path} is what the agent is told")


def examine(options: argparse.Namespace) -> Iterator[pb.Finding]:
    """Everything, one after the other."""
    state = Path(options.state).absolute()
    yield diagnosis.root(os.geteuid())
    yield diagnosis.kernel(platform.release(), syscalls.kernel_version())
    yield diagnosis.control_groups(*machine.control_groups())
    yield diagnosis.seccomp(*machine.seccomp_facts())
    yield from _disk(machine.nearest(state), options.ids.first)
    yield _memory()
    yield diagnosis.nftables(machine.nftables_problem())
    yield diagnosis.vxlan(machine.vxlan_problem())
    yield diagnosis.ids(users.conflict(options.ids, _id_files()))
    yield from _network(options, Layout(state, None))
    yield diagnosis.names(machine.servers_of(Path(options.resolv_conf)))
    yield diagnosis.kept_clock(machine.is_clock_kept())
    if options.door:
        yield _clock_at(options.door)
    yield _certificate(Folder(Path(options.trust) if options.trust else state / "trust"), state)


def _disk(folder: Path, first_id: int) -> Iterator[pb.Finding]:
    found = os.statvfs(folder)
    yield diagnosis.disk(str(folder), found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    yield diagnosis.inodes(str(folder), found.f_files, found.f_favail)
    yield diagnosis.overlay(machine.overlay_problem(folder))
    yield diagnosis.users(machine.users_problem(folder, first_id))


def _memory() -> pb.Finding:
    found = node.memory_of(Path("/proc/meminfo").read_text())
    return diagnosis.memory(found["MemTotal"], found["MemAvailable"])


def _network(options: argparse.Namespace, layout: Layout) -> Iterator[pb.Finding]:
    """What the agent would listen at, or does; and the way to other nodes."""
    if options.address:
        link, size_bytes = machine.link_of(options.address)
        yield diagnosis.mtu(link, size_bytes, options.address)
        if not link:
            return
    pid = machine.agent_of(layout)
    for port in _ports(options):
        yield diagnosis.port(machine.looked_up(port, options.address or "0.0.0.0", pid))  # noqa: S104 - any address


def _ports(options: argparse.Namespace) -> Iterator[Port]:
    listened = (
        (options.blob_port, "tcp", "layers of images for other nodes", "give the agent another --blob-port"),
        (options.metrics_port, "tcp", "metrics", "give the agent another --metrics-port"),
        (overlay.PORT, "udp", "tunnels between nodes", "start the control planes with --network-mode routes"),
        (dns.PORT, "udp", "the names of the cluster", "have it listen at its own addresses only"),
        (dns.PORT, "tcp", "the names of the cluster", "have it listen at its own addresses only"),
    )
    for number, protocol, purpose, option in listened:
        if number:
            yield Port(number=number, protocol=protocol, purpose=purpose, option=option)


def _clock_at(door: str) -> pb.Finding:
    try:
        before = time.time_ns()
        theirs_ms = joining.clock_of(door)
        after = time.time_ns()
    except joining.NotJoined as error:
        remedy = error.hint or "start the control plane, or give the right --door"
        return findings.failed("clock", f"it cannot be compared: {error}", remedy)
    middle_ms, uncertain_ms = (before + after) // 2_000_000, (after - before) // 2_000_000
    return diagnosis.clock_against("the control plane's", middle_ms - theirs_ms, uncertain_ms)


def _certificate(folder: Folder, state: Path) -> pb.Finding:
    if not folder.exists():
        return findings.ok("certificate", "this machine has joined no cluster yet")
    anew = "orchctl node join" if str(state) == DEFAULT_STATE else f"orchctl node join --state {state}"
    try:
        own = folder.load(Role.NODE)
        named = machine.node_id_of(Layout(state, None))
    except (NotTrusted, Malformed) as error:
        return findings.failed("certificate", str(error), f"`{anew}` with a new token")
    if named and own.identity.name != named:
        text = f"{folder.path} is of the node {own.identity.name}, and {state} of {named}: the agent does not start"
        return findings.failed("certificate", text, f"give the folders that were made together, or `{anew}` anew")
    return diagnosis.certificate(own.facts, time.time_ns() // 1_000_000, anew)


def _id_files() -> dict[str, str]:
    return {path: Path(path).read_text(errors="replace") for path in users.FILES if Path(path).exists()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchctl node doctor", description="Looks at this machine as a node.")
    parser.add_argument(
        "--config", metavar="FILE", help=f"what the agent is told (default: {CONFIGURATION}, unless --state is said)"
    )
    parser.add_argument("--state", help=f"the agent's state folder (default: as the file says, or {DEFAULT_STATE})")
    parser.add_argument("--trust", help="the folder with its certificate (default: STATE/trust)")
    parser.add_argument("--address", help="the address at which other nodes reach this one")
    parser.add_argument("--door", metavar="HOST:PORT", help="the door of a control plane, to compare clocks with")
    parser.add_argument("--ids", default=users.DEFAULT, type=users.Ids.parse, help="as the agent has it")
    parser.add_argument("--blob-port", default=imageoptions.BLOB_PORT, type=int, help="as the agent has it")
    parser.add_argument("--metrics-port", default=agent_options.METRICS_PORT, type=int, help="as the agent has it")
    parser.add_argument("--resolv-conf", default="/etc/resolv.conf", help="as the agent has it")
    parser.add_argument("-o", "--output", choices=["json"], help="the same for programs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
