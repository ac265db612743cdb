"""A real etcd for tests: on free loopback ports, in a folder of its own, killed and removed at the end."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from controlplane.core.trust import etcd_flags

START_TIMEOUT_S = 10


def free_port() -> int:
    """A port that nothing listens on now; the kernel does not hand it out again soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EtcdProcess:
    """Start, kill and restart one etcd member; its data and its ports survive a restart."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        client_port: int,
        peers: Mapping[str, str],
        trust: Path | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """`peers`: the peer URL of every member of the cluster by its name, this one included.

        `trust`: the folder of an instance's certificates, with which it speaks TLS. `flags`: what it is told beside.
        """
        binary = shutil.which("etcd")
        assert binary, "etcd is not on PATH: apt-get install etcd-server"
        self.peer_url = peers[name]
        self.endpoint = f"127.0.0.1:{client_port}"
        self._log = folder / f"{name}.log"
        self._trust = trust
        self.scheme = "https" if trust is not None else "http"
        self._arguments = [
            binary,
            f"--name={name}",
            f"--data-dir={folder / name}",
            f"--listen-client-urls={self.scheme}://{self.endpoint}",
            f"--advertise-client-urls={self.scheme}://{self.endpoint}",
            f"--listen-peer-urls={peers[name]}",
            f"--initial-advertise-peer-urls={peers[name]}",
            f"--initial-cluster={','.join(f'{peer}={url}' for peer, url in peers.items())}",
            "--logger=zap",
            *(etcd_flags.flags(trust / "etcd") if trust is not None else ()),
            *flags,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers clients, which it does once its cluster has a leader."""
        self.spawn()
        self.wait_until_healthy()

    def spawn(self) -> None:
        assert self._process is None, "already running"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log)

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_healthy():
            stopped = self._process is None or self._process.poll() is not None
            assert not stopped, f"etcd stopped:\n{self.log()}"
            assert time.monotonic() < deadline, f"etcd is not healthy after {START_TIMEOUT_S} s:\n{self.log()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """As a crash would: `kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def freeze(self) -> None:
        """Return when every thread has stopped; a frozen member can only be killed."""
        assert self._process is not None, "not running"
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def _is_healthy(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(
                f"{self.scheme}://{self.endpoint}/health", timeout=1, context=self._context()
            ) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def _context(self) -> ssl.SSLContext | None:
        if self._trust is None:
            return None
        context = ssl.create_default_context(cafile=self._trust / "etcd" / "roots.pem")
        context.load_cert_chain(self._trust / "store.pem")
        return context


@contextlib.contextmanager
def cluster(count: int, trust: Path | None = None, flags: Sequence[str] = ()) -> Iterator[list[EtcdProcess]]:
    """Members for the length of a block. `trust`, `flags`: as of each member."""
    scheme = "https" if trust is not None else "http"
    # Memory is durable enough: a test crashes etcd, not the machine, and an fsync on a busy disk takes seconds.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="orch-etcd-", dir=memory) as folder:
        peers = {f"member{i}": f"{scheme}://127.0.0.1:{free_port()}" for i in range(count)}
        members = [
            EtcdProcess(Path(folder), name=name, client_port=free_port(), peers=peers, trust=trust, flags=flags)
            for name in peers
        ]
        try:
            for member in members:
                member.spawn()
            for member in members:
                member.wait_until_healthy()
            yield members
        finally:
            for member in members:
                member.kill()


@contextlib.contextmanager
def running(trust: Path | None = None) -> Iterator[EtcdProcess]:
    """An etcd of one member for the length of a block. `trust`: as of each member."""
    with cluster(1, trust) as (member,):
        yield member
