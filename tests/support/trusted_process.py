"""Instances of the control plane with TLS, as processes of their own, over an etcd with TLS."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from protos.orch.v1 import control_pb2, control_pb2_grpc
from tests.support import etcd
from trust import credentials
from trust.folder import Material

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 40.0


class Process:
    """An instance of the control plane as a process."""

    def __init__(self, folder: Path, name: str, members: list[etcd.EtcdProcess]) -> None:
        self.address, self.door, self.metrics = (f"127.0.0.1:{etcd.free_port()}" for _ in range(3))
        self._log = folder / f"{name}.log"
        endpoints = ",".join(f"https://{member.endpoint}" for member in members)
        self._arguments = [
            *(sys.executable, "-m", "controlplane", f"--name={name}", f"--listen={self.address}"),
            *(f"--advertise={self.address}", f"--door={self.door}", f"--etcd={endpoints}"),
            f"--metrics={self.metrics}",
            *(f"--trust={folder / name}", f"--state={folder / f'{name}-state'}"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._arguments, cwd=ROOT, stdout=log, stderr=log)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def ended(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait(START_TIMEOUT_S)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait(10)


@contextlib.contextmanager
def instance(folder: Path, name: str, members: list[etcd.EtcdProcess]) -> Iterator[Process]:
    process = Process(folder, name, members)
    try:
        yield process
    finally:
        process.stop()


def leader(process: Process, own: Material) -> str:
    """The leader's name, as the instance tells it; waits until there is one."""
    deadline = time.monotonic() + START_TIMEOUT_S
    options = (("grpc.max_reconnect_backoff_ms", 200), *credentials.CHANNEL_OPTIONS)
    with grpc.secure_channel(process.address, credentials.channel(own), options=options) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        while True:
            assert process.ended() is None, process.log()
            assert time.monotonic() < deadline, process.log()
            with contextlib.suppress(grpc.RpcError):
                found = stub.Version(control_pb2.VersionRequest(), timeout=2, wait_for_ready=True)
                if found.leader:
                    return str(found.leader)
