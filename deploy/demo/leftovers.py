"""What a cluster leaves on the machine when it has gone: nothing, or a line each.

Everything is looked for by what only this cluster has (its folder, its cgroups, its namespaces' inodes, its link), so
that other things may come and go on the machine meanwhile.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import network, plan, processes
from runtime import cgroups

_PLACES: Final = ("/etc", "/run", "/var/lib", "/var/tmp", "/tmp", "/dev/shm", "~/.config", "~/.local/state")  # noqa: S108 - only looked at
_SETTLE_S: Final = 3.0
_PAUSE_S: Final = 0.05
_NAMESPACES: Final = ("net", "mnt", "pid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What there was before the cluster."""

    files: frozenset[str]
    tables: frozenset[str]


Namespaces = Mapping[str, int]
"""A cluster's namespaces, as `net:[4026532201]`, each with a moment before it was last seen (in clock ticks since
boot). The kernel gives such a number again once the namespace is gone, so only a process that was there at that moment
can be one that stayed behind."""


def look() -> Before:
    """Call it before the cluster is there."""
    return Before(files=frozenset(_files()), tables=frozenset(_nft_tables()))


def namespaces(the_plan: plan.Plan) -> Namespaces:
    """Call it while the cluster is up."""
    # Before the look: what ends in the middle of it gives its number to somebody else who has begun by its end.
    ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    own = {_namespace(os.getpid(), kind) for kind in _NAMESPACES}
    found = {_namespace(pid, kind) for pid in _processes(the_plan) for kind in _NAMESPACES} - own - {""}
    return dict.fromkeys(found, ticks)


def find(the_plan: plan.Plan, before: Before, its_namespaces: Namespaces) -> list[str]:
    """One line for each thing that is left; an empty list is what everybody wants.

    The kernel clears away processes and namespaces in its own time, so this looks again for a moment.
    """
    deadline = time.monotonic() + _SETTLE_S
    while (found := _find_now(the_plan, before, its_namespaces)) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return found


def _find_now(the_plan: plan.Plan, before: Before, its_namespaces: Namespaces) -> list[str]:
    return [
        *(f"process {pid}: {_command(pid)}" for pid in _processes(the_plan)),
        *(f"mount: {line}" for line in _mounts(the_plan)),
        *(f"namespace {name} of process {pid}" for pid, name in _users_of(its_namespaces)),
        *(f"control group {folder}" for folder in _cgroups(the_plan)),
        *([f"link {the_plan.host_link}"] if network.exists(the_plan.host_link) else []),
        *(f"nftables: {table}" for table in sorted(set(_nft_tables()) - before.tables)),
        *(f"file {path}" for path in sorted(set(_files()) - before.files)),
    ]


def _processes(the_plan: plan.Plan) -> Iterator[int]:
    """By the folder in the command line or the environment, which children inherit; containers by their cgroup."""
    folder, group = the_plan.folder.encode(), f":{the_plan.cgroup}/"
    for pid in _pids():
        if pid == os.getpid() or not _command(pid):  # a zombie has no command line
            continue
        if folder in _read(pid, "cmdline") + _read(pid, "environ") or group in _read(pid, "cgroup").decode():
            yield pid


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # some are not even root's to read
        return b""


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def _namespace(pid: int, kind: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _users_of(its_namespaces: Namespaces) -> Iterator[tuple[int, str]]:
    """But for those that have ended: a process is in its namespace of pids until its parent has taken note of it."""
    for pid in _pids():
        for kind in _NAMESPACES:
            name = _namespace(pid, kind)
            if name in its_namespaces and _began(pid) < its_namespaces[name] and _command(pid):
                yield pid, name


def _began(pid: int) -> int:
    try:
        return processes.of(pid).started
    except ProcessLookupError:
        return sys.maxsize


def _mounts(the_plan: plan.Plan) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if the_plan.folder in line]


def _cgroups(the_plan: plan.Plan) -> list[str]:
    layout = cgroups.current_layout()
    roots = {folder for _, folder in layout.controllers} | {layout.unified}
    return sorted(root + the_plan.cgroup for root in roots if root and Path(root + the_plan.cgroup).exists())


def _nft_tables() -> list[str]:
    result = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=10, check=True)
    return [line for line in result.stdout.splitlines() if re.search(r"\borch", line)]


def _files() -> Iterator[str]:
    for place in _PLACES:
        folder = Path(place).expanduser()
        if folder.is_dir():
            yield from (str(entry) for entry in folder.iterdir() if re.match(r"\.?orch(-demo.*)?$", entry.name))
