"""Control planes as an operator has them: each with a folder, its member of etcd and its instance, started by commands.

Each has an address of its own in 127/8, so that all can have the usual ports.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from protos.orch.v1 import control_pb2, control_pb2_grpc
from tests.support.waiting import until
from trust import credentials
from trust.core.identity import Role
from trust.folder import Folder, Material

ROOT = Path(__file__).parents[2]
START_S = 40.0
RESTART_S = 0.2
COMMAND_S = 60


class Machine:
    """One of them. Its folder: `trust`, `etcd` and `state` below."""

    def __init__(self, folder: Path, name: str, host: str) -> None:
        self.folder, self.name, self.host = folder / name, name, host
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._changing = threading.Lock()
        self.restarts = 0

    @property
    def server(self) -> str:
        return f"{self.host}:7400"

    @property
    def door(self) -> str:
        return f"{self.host}:7401"

    @property
    def trust(self) -> Path:
        return self.folder / "trust"

    def start_etcd(self, *, restarted: bool = True) -> None:
        """When it is asked to end by anybody else, it is started again, as systemd does; `restarts` counts that."""
        options = (f"--trust={self.trust}", f"--data={self.folder / 'etcd'}", *(["--restarted"] if restarted else []))
        process = self._start("etcd", "controlplane.member", *options)
        if restarted:
            threading.Thread(target=self._restart, args=(process,), daemon=True).start()

    def _restart(self, process: subprocess.Popen[bytes]) -> None:
        if process.wait() != -signal.SIGTERM:
            return
        time.sleep(RESTART_S)
        with self._changing:
            if self._running.get("etcd") is process:
                del self._running["etcd"]
                self.restarts += 1
                self.start_etcd()

    def start_instance(self) -> None:
        self._start(
            *("instance", "controlplane", f"--name={self.name}", f"--listen={self.server}"),
            *(f"--advertise={self.server}", f"--door={self.door}", f"--trust={self.trust}"),
            f"--state={self.folder / 'state'}",
        )

    def start(self) -> None:
        self.start_etcd()
        self.start_instance()

    def start_configured(self, what: str, module: str, path: Path) -> None:
        """`etcd` or `instance`, as its unit starts it: by the file that a command has written."""
        self._start(what, module, f"--config={path}")

    def start_program(self, what: str, program: str, *arguments: str) -> None:
        """`etcd` or `instance`, as a person types it: `orch-etcd --trust …`."""
        self._run(what, [str(Path(sys.executable).parent / program), *arguments])

    def _start(self, what: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._run(what, [sys.executable, "-m", module, *arguments])

    def _run(self, what: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        assert what not in self._running, f"{what} of {self.name} runs"
        self.folder.mkdir(exist_ok=True)
        with self._log(what).open("ab") as log:
            self._running[what] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        return self._running[what]

    def _log(self, what: str) -> Path:
        return self.folder.with_name(f"{self.name}-{what}.log")

    def log(self, what: str) -> str:
        return self.whole_log(what)[-3000:]

    def whole_log(self, what: str) -> str:
        return self._log(what).read_text(errors="replace")

    def ended(self, what: str) -> int | None:
        """Its exit code; None while it runs."""
        return self._running[what].poll()

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Everything of it."""
        with self._changing:
            running, self._running = self._running, {}
        for process in running.values():
            process.send_signal(number)
            process.wait(START_S)

    def kill(self, what: str) -> None:
        """Its `instance` or its `etcd` alone, as a crash would."""
        with self._changing:
            process = self._running.pop(what)
        process.kill()
        process.wait(START_S)

    def ask(self, own: Material) -> control_pb2.VersionResponse | None:
        """What it says of itself; None while it does not answer."""
        with contextlib.suppress(grpc.RpcError), self.stub(own) as stub:
            return stub.Version(control_pb2.VersionRequest(), timeout=2)
        return None

    @contextlib.contextmanager
    def stub(self, own: Material) -> Iterator["control_pb2_grpc.ControlStub"]:
        options = (("grpc.use_local_subchannel_pool", 1), *credentials.CHANNEL_OPTIONS)
        with grpc.secure_channel(self.server, credentials.channel(own), options=options) as channel:
            yield control_pb2_grpc.ControlStub(channel)


class Estate:
    """The machines of a test, and its person's context file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._net = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(250)}"
        self._machines: list[Machine] = []
        self.environ = {**os.environ, "ORCH_CONFIG": str(folder / "config.yaml"), "PYTHONPATH": str(ROOT)}

    def machine(self, name: str) -> Machine:
        """Another one, on which nothing is yet."""
        made = Machine(self.folder, name, f"{self._net}.{10 + len(self._machines)}")
        self._machines.append(made)
        return made

    def orchctl(self, *arguments: str, code: int = 0) -> str:
        """What it prints and complains of, after a look at how it ended."""
        done = self.run(*arguments)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"orchctl {' '.join(arguments)}: {done.returncode}\n{said}"
        return said

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchctl", *arguments],
            cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip

    def found(self, first: Machine, *more: str) -> dict[str, str]:
        """A cluster on its first machine, which is started; the tokens by their role."""
        said = self.orchctl(
            "cluster", "init", f"--name={first.name}", f"--trust={first.trust}", *more, "--server", first.server
        )
        tokens = [line.strip() for line in said.splitlines() if line.strip().startswith("orch-1.")]
        return dict(zip(("node", "controlplane"), tokens, strict=True))

    def join(self, machine: Machine, at: Machine, token: str, code: int = 0) -> str:
        """By the command that the guide names."""
        arguments = (f"--token={token}", f"--door={at.door}", f"--name={machine.name}", f"--trust={machine.trust}")
        return self.orchctl("cluster", "join", *arguments, f"--host={machine.host}", code=code)

    @property
    def admin(self) -> Material:
        """Who has founded it."""
        return Folder(self.folder / "trust" / "default").load(Role.ADMIN)

    def until_leads(self, *machines: Machine, timeout_s: float = START_S) -> str:
        """Until all of them say that the same one of them leads; its name."""
        names = {machine.name for machine in machines}

        def look() -> str | None:
            for machine in machines:
                assert machine.ended("instance") is None, machine.log("instance")
            answers = [machine.ask(self.admin) for machine in machines]
            leaders = {answer.leader if answer and not answer.store_problem else "" for answer in answers}
            return leaders.pop() if len(leaders) == 1 and leaders <= names else None

        return until(look, what="one leads", timeout_s=timeout_s)

    def stop(self) -> None:
        for machine in self._machines:
            machine.stop()


@contextlib.contextmanager
def estate(folder: Path) -> Iterator[Estate]:
    """Everything that was started in the block has ended at its end."""
    made = Estate(folder)
    try:
        yield made
    finally:
        made.stop()


def members(of: Machine) -> Sequence[tuple[str, bool]]:
    """Names of etcd's members and whether they only learn, by etcd's own account."""
    return members_at(of.host, of.trust)


def members_at(host: str, trust: Path) -> Sequence[tuple[str, bool]]:
    """The same of the member at an address, with the certificates of an instance."""
    listed = _asked(host, trust, "cluster/member/list")["members"]
    return sorted((one.get("name", ""), one.get("isLearner", False)) for one in listed)


def leads_store(of: Machine) -> bool:
    """Whether the member on that machine leads the others."""
    status = _asked(of.host, of.trust, "maintenance/status")
    return bool(status["leader"] == status["header"]["member_id"])


def split(both: Path, folder: Path) -> tuple[Path, Path]:
    """A certificate and its key, which are in one file, in files of their own in a folder."""
    key, end, chain = both.read_text().partition("-----END PRIVATE KEY-----\n")
    (folder / "client-key.pem").write_text(key + end)
    (folder / "client.pem").write_text(chain)
    return folder / "client.pem", folder / "client-key.pem"


def _asked(host: str, trust: Path, call: str) -> Any:
    context = ssl.create_default_context(cafile=trust / "store-roots.pem")
    context.load_cert_chain(trust / "store.pem")
    request = urllib.request.Request(f"https://{host}:2379/v3/{call}", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return json.load(answer)


def shown_by_store(of: Machine) -> bytes:
    """The certificate that the member on that machine shows now, as DER."""
    context = ssl.create_default_context(cafile=of.trust / "store-roots.pem")
    context.load_cert_chain(of.trust / "store.pem")
    with (
        socket.create_connection((of.host, 2379), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=of.host) as link,
    ):
        return link.getpeercert(binary_form=True) or b""
