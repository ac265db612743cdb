"""A real control plane for tests: etcd and one instance, as processes of their own."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from protos.orch.v1 import control_pb2, control_pb2_grpc
from tests.support import etcd

START_TIMEOUT_S = 20
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of an instance that leads."""
    address = f"127.0.0.1:{etcd.free_port()}"
    with etcd.running() as store, tempfile.TemporaryDirectory(prefix="orch-control-") as folder:
        log = Path(folder, "log")
        arguments = [f"--listen={address}", f"--advertise={address}", f"--etcd=http://{store.endpoint}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "controlplane", "--name=cp1", *arguments, f"--state={folder}/state"],
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        try:
            _wait_for_leader(address, process, log)
            yield address
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait(10)


def _wait_for_leader(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        while not _leads(stub):
            late = process.poll() is not None or time.monotonic() > deadline
            assert not late, f"the control plane did not start:\n{log.read_text(errors='replace')[-4000:]}"
            time.sleep(0.05)


def _leads(stub: control_pb2_grpc.ControlStub) -> bool:
    with contextlib.suppress(grpc.RpcError):
        answer = stub.Version(control_pb2.VersionRequest(), timeout=2, wait_for_ready=True)
        return answer.leader == answer.instance
    return False
