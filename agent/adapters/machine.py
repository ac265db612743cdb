"""Reads what a doctor wants to know of this machine, and tries what only trying tells.

Two rules. Everything is tried for real and in a namespace of its own, so that nothing of it is left: a table, a tunnel,
an overlay. And whatever cannot be read is a sentence, never an exception.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.adapters import dnsupstream, nameclient
from agent.adapters.layout import Layout
from agent.adapters.netlink import Netlink
from agent.core import overlay
from agent.core.diagnosis import Port
from agent.core.dns import resolvers, wire
from runtime import cgrouplayout, errors, userprobe
from runtime.seccomp import library
from telemetry import clock

COMMAND_S = 15.0
NAME_SERVER_S = 2.0
_LISTENS = "0A"
_TABLE = """
table inet orch-doctor {
  set counted { type ipv4_addr; counter; elements = { 192.0.2.3 counter } }
  chain in {
    type nat hook prerouting priority dstnat
    dnat ip to numgen random mod 2 map { 0 : 192.0.2.1, 1 : 192.0.2.2 }
  }
  chain through { type filter hook forward priority filter; ct state established accept; reject; }
  chain out { type nat hook postrouting priority srcnat; masquerade; }
}
"""


def nftables_problem() -> str:
    """Why a table such as ours cannot be loaded, tried in a network of its own."""
    return _problem(["unshare", "--net", "nft", "-f", "-"], _TABLE)


def vxlan_problem() -> str:
    """Why a tunnel cannot be made, tried in a network of its own."""
    tunnel = ["ip", "link", "add", "orch-doctor", "type", "vxlan", "id", "1", "dstport", str(overlay.PORT)]
    return _problem(["unshare", "--net", *tunnel, "dev", "lo"])


def overlay_problem(folder: Path) -> str:
    """Why an overlay cannot be mounted on the folder's file system, tried in a mount namespace of its own."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as below:
            parts = [Path(below, name) for name in ("lower", "upper", "work", "merged")]
            for part in parts:
                part.mkdir()
            lower, upper, work, merged = parts
            options = f"lowerdir={lower},upperdir={upper},workdir={work}"
            return _problem(["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "overlay", str(merged)])
    except OSError as error:
        return _words(error)


def users_problem(folder: Path, first_id: int) -> str:
    """Why containers on the folder's file system cannot have users of their own. Forks: one thread must be there."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as below:
            return userprobe.why_not(below, below, first_id=first_id)
    except OSError as error:
        return _words(error)


def seccomp_facts() -> tuple[str, str]:
    """The version of libseccomp, empty when it is missing; and what the kernel's filters can do."""
    try:
        version = library.version()
    except errors.ContainerError:
        version = ""
    return version, _text(Path("/proc/sys/kernel/seccomp/actions_avail"))


def control_groups() -> tuple[str, frozenset[str]]:
    """The mode, and the controllers of it."""
    found = cgrouplayout.current_layout()
    if found.is_v2:
        return "v2", frozenset(_text(Path(found.unified, "cgroup.controllers")).split())
    if not found.controllers:
        return "", frozenset()
    return ("hybrid" if found.unified else "v1"), frozenset(name for name, _ in found.controllers)


def is_clock_kept() -> bool:
    """Whether the kernel was told lately that its clock is right (adjtimex(2))."""
    try:
        return clock.is_kept()
    except OSError:
        return False


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there: where it would be made."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def agent_of(layout: Layout) -> int:
    """The pid of the agent that runs on a state folder; 0 when none does."""
    try:
        lock = os.open(layout.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(lock, 20, 0)
        return int(said) if said.isdigit() else 0
    finally:
        os.close(lock)
    return 0


def node_id_of(layout: Layout) -> str:
    """The id that was given to the node of a state folder; empty while none was."""
    return _text(layout.node).strip()


def link_of(address: str) -> tuple[str, int]:
    """The interface that has an address, and its MTU; an empty name when none has."""
    with Netlink() as netlink:
        index = netlink.addresses().get(address)
        found = next((link for link in netlink.links() if link.index == index), None)
    return (found.name, found.mtu) if found is not None else ("", 0)


def servers_of(resolv_conf: Path) -> dict[str, str]:
    """Why each name server of a file does not answer; empty: it does."""
    servers = resolvers.parse(_text(resolv_conf)).servers

    async def asked() -> list[str]:
        return await asyncio.gather(*map(_silence, servers))

    return dict(zip(servers, asyncio.run(asked()), strict=True))


async def _silence(server: str) -> str:
    try:
        answer = await nameclient.ask((server, dnsupstream.PORT), ".", wire.NS, timeout_s=NAME_SERVER_S)
    except TimeoutError:
        return f"no answer within {NAME_SERVER_S:g} s"
    except OSError as error:
        return _words(error)
    return "" if answer.code in {wire.NOERROR, wire.NXDOMAIN, wire.REFUSED} else f"it answers with code {answer.code}"


# Who has a port -----------------------------------------------------------------------------------------------------


def looked_up(port: Port, address: str, agent_pid: int) -> Port:
    """The same port, with who has it at the address."""
    if _is_free(port, address):
        return port
    pid = _pid_at(port)
    name = _text(Path(f"/proc/{pid}/comm")).strip()
    holder = f"{name} (pid {pid})" if pid else "the kernel"
    ours = bool(agent_pid) and (pid == agent_pid or (not pid and port.protocol == "udp"))
    return Port(
        number=port.number,
        protocol=port.protocol,
        purpose=port.purpose,
        option=port.option,
        holder=holder,
        ours=ours,
    )


def _is_free(port: Port, address: str) -> bool:
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as trying:
        try:
            if port.protocol == "tcp":
                # A connection that has ended takes no port.
                trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind((address, port.number))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _pid_at(port: Port) -> int:
    """Whose socket it is (proc_net_tcp(5)); 0: no process of this machine has it."""
    inodes = {inode for family in ("", "6") for inode in _inodes(f"/proc/net/{port.protocol}{family}", port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            if any(_link(one) in wanted for one in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue  # it has ended, or is somebody else's
    return 0


def _inodes(table: str, port: Port) -> list[str]:
    rows = (line.split() for line in _text(Path(table)).splitlines()[1:])
    return [
        row[9]
        for row in rows
        if int(row[1].rpartition(":")[2], 16) == port.number and (port.protocol == "udp" or row[3] == _LISTENS)
    ]


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


# ----------------------------------------------------------------------------------------------------------------------


def _problem(command: Sequence[str], text: str = "") -> str:
    """The last words of a command that fails; empty when it succeeds."""
    missing = next((name for name in (command[0], command[2]) if shutil.which(name) is None), "")
    if missing:
        return f"the program {missing} is missing"
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _words(error)
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (said[0] if said else f"exit code {done.returncode}")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _text(path: Path) -> str:
    """A file of the kernel's or of the machine's; empty when it is not there."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
