"""A real etcd for tests: one member on free loopback ports, in a folder of its own, killed and removed at the end."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 10


def free_port() -> int:
    """A port that nothing listens on now; the kernel does not hand it out again soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EtcdProcess:
    """Start, kill and restart one etcd member; its data and its port survive a restart."""

    def __init__(self, folder: Path, *extra_arguments: str) -> None:
        binary = shutil.which("etcd")
        assert binary, "etcd is not on PATH: apt-get install etcd-server"
        self._folder = folder
        self._client_port, peer_port = free_port(), free_port()
        peer_url = f"http://127.0.0.1:{peer_port}"
        self._arguments = [
            binary,
            "--name=test",
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls=http://{self.endpoint}",
            f"--advertise-client-urls=http://{self.endpoint}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=test={peer_url}",
            "--logger=zap",
            *extra_arguments,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._client_port}"

    def start(self) -> None:
        """Return when it answers clients, which it does once it leads its cluster of one."""
        assert self._process is None, "already running"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_healthy():
            stopped = self._process.poll() is not None or time.monotonic() > deadline
            assert not stopped, f"etcd did not start:\n{self.log()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """As a crash would: `kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(number)

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _is_healthy(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{self.endpoint}/health", timeout=1) as answer,
        ):
            return bool(answer.status == 200)
        return False


@contextlib.contextmanager
def running(*extra_arguments: str) -> Iterator[EtcdProcess]:
    """An etcd for the length of a block."""
    # Memory is durable enough: a test crashes etcd, not the machine, and an fsync on a busy disk takes seconds.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="orch-etcd-", dir=memory) as folder:
        process = EtcdProcess(Path(folder), *extra_arguments)
        process.start()
        try:
            yield process
        finally:
            process.kill()
