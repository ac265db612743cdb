"""What listens in a local cluster speaks TLS 1.3: no port of ours is left in the clear, also in the demo's cluster."""

import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import LocalCluster

pytestmark = pytest.mark.root

LISTENING = "0A"
NAMES = 53
"""Tasks ask their node for names there, as every resolver of theirs does."""


def listening(pid: int) -> Iterator[tuple[str, int]]:
    """Where a process listens, of TCP (proc_pid_net(5)): addresses stand there as words of this machine's order."""
    own = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in own:
                address, _, port = fields[1].partition(":")
                words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
                yield str(ipaddress.ip_address(b"".join(words))), int(port, 16)


def greeting(pid: int, host: str, port: int, version: str) -> str:
    """What openssl says of a handshake with it, from the same network namespace."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    place = f"[{loopback}]:{port}" if ":" in loopback else f"{loopback}:{port}"
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "openssl", "s_client", "-connect", place, version]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def test_every_port_speaks_tls_1_3_and_nothing_older(local: LocalCluster) -> None:
    """Etcd's, the control plane's, the door, and those of nodes, but for the names that tasks ask for."""
    pids = {name: local.process(name).pid for name in ("etcd", "cp1")}
    pids |= {node: local.agent_pid(node) for node in ("n1", "n2", "n3")}
    found = [(name, pid, host, port) for name, pid in pids.items() for host, port in listening(pid) if port != NAMES]
    assert {name for name, *_ in found} == set(pids), "each of them listens somewhere"
    assert len(found) >= 2 + 2 + 3, "etcd's two, the control plane's two, and one of each node"
    for name, pid, host, port in found:
        assert "New, TLSv1.3, Cipher is" in greeting(pid, host, port, "-tls1_3"), f"{name} at {host}:{port}"
        assert "Cipher is (NONE)" in greeting(pid, host, port, "-tls1_2"), f"{name} at {host}:{port}"
