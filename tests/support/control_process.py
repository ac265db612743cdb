"""A real control plane for tests: etcd and one instance, as processes of their own."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from protos.orch.v1 import control_pb2, control_pb2_grpc
from tests.support import etcd

START_TIMEOUT_S = 20
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A control plane as a process. Its log is in its folder."""

    name: str
    address: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def images(self) -> Path:
        """The store with the images that it keeps."""
        return self.folder / "state" / "images"

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(10)

    def wait_until_it_leads(self) -> None:
        _wait_for_leader(self.address, self.process, self.folder / "log")


@contextlib.contextmanager
def instance(name: str, endpoint: str, folder: Path, *options: str) -> Iterator[Instance]:
    """An instance beside others over one etcd; it may not lead yet. It answers at a socket of this machine."""
    folder.mkdir()
    # The path of a socket has at most 107 bytes; that of a test's folder may have more.
    sockets = tempfile.mkdtemp(prefix="orch-control-")
    address = f"unix:{sockets}/socket"
    arguments = [f"--name={name}", f"--listen={address}", f"--advertise={address}", f"--etcd=http://{endpoint}"]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane", *arguments, f"--state={folder}/state", *options],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        yield Instance(name=name, address=address, folder=folder, process=process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait(10)
        shutil.rmtree(sockets)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of an instance that leads."""
    with (
        etcd.running() as store,
        tempfile.TemporaryDirectory(prefix="orch-control-") as folder,
        instance("cp1", store.endpoint, Path(folder, "cp1")) as one,
    ):
        one.wait_until_it_leads()
        yield one.address


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
