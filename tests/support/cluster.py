"""A real local cluster for tests: the code of `orchctl cluster up`, and `orchctl` itself as a process."""

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from deploy import hello
from deploy.local import cluster, nodes, plan, processes, tasks, trust
from orchctl import client
from protos.orch.v1 import control_pb2, objects_pb2
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
ORCHCTL = Path(sys.executable).parent / "orchctl"
COMMAND_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """One that is up. Commands run with a context file of its own, in the project's folder."""

    plan: plan.Plan

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder)

    def orchctl(self, *arguments: str, code: int = 0, text: str = "") -> str:
        """What the command prints, after checking how it ended; `text` is its input."""
        done = self.run(*arguments, text=text)
        said = f"orchctl {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        assert done.returncode == code, f"exit code {done.returncode}, not {code}: {said}"
        return done.stdout

    def refusal(self, *arguments: str, text: str = "") -> str:
        """What the command says that is refused."""
        done = self.run(*arguments, text=text)
        assert done.returncode, f"it was not refused: {done.stdout}{done.stderr}"
        return done.stderr

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """The command, once it has ended. TimeoutExpired, after it was ended, when it takes too long."""
        with subprocess.Popen(
            [ORCHCTL, *arguments],
            env={**environment(self.plan.config), "PYTHONFAULTHANDLER": "1"},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(text, timeout=COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # it tells what each of its threads waits for
                out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def apply_hello(self, name: str, *, replicas: int = 3, more: str = "") -> list[objects_pb2.Task]:
        """A service of the image `hello`, once it is whole. `more` goes into the spec, indented by two."""
        manifest = (
            f"kind: Service\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n{more}"
            "  template:\n    stopGracePeriod: 2s\n    container: {image: hello}\n"
        )
        self.orchctl("apply", "-f", "-", text=manifest)
        return self.await_whole(name, replicas)

    def start_orchctl(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on; the test ends it."""
        return subprocess.Popen(
            [ORCHCTL, *arguments],
            env=environment(self.plan.config),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def await_whole(
        self, service: str, replicas: int, *, timeout_s: float = 15, but_not_on: str = ""
    ) -> list[objects_pb2.Task]:
        """The service's tasks by slot, once there is a running one for each replica."""
        what = f"{replicas} replicas of {service} run"
        return until(
            lambda: tasks.whole(self.plan, service, replicas, but_not_on=but_not_on),
            what=what,
            timeout_s=timeout_s,
        )

    def tasks(self, service: str) -> list[objects_pb2.Task]:
        return tasks.ask(self.plan, service)

    def task(self, name: str) -> objects_pb2.Task:
        return next(task for task in self.tasks("") if task.meta.name == name)

    def scale(self, name: str, replicas: int) -> None:
        """Without a command's start in between. Does not wait."""
        with trust.reach(self.plan) as control:
            reference = control_pb2.ObjectReference(kind="service", namespace="default", name=name)
            control.Scale(
                control_pb2.ScaleRequest(reference=reference, replicas=replicas), timeout=client.CALL_TIMEOUT_S
            )

    def service(self, name: str) -> objects_pb2.Service:
        with trust.reach(self.plan) as control:
            reference = control_pb2.ObjectReference(kind="service", namespace="default", name=name)
            return control.Get(control_pb2.GetRequest(reference=reference), timeout=client.CALL_TIMEOUT_S).service

    def nodes(self) -> dict[str, nodes.Node]:
        """By name."""
        return {node.name: node for node in nodes.ask(self.plan)}

    def container_pid(self, task: str) -> int:
        """Process 1 of its container, as the host counts."""
        return until(lambda: processes.first_of_container(task), what=f"{task} has a process", timeout_s=10)

    def agent_pid(self, node: str) -> int:
        return self._pid_in(node, "agent")

    def launcher_pid(self, node: str) -> int:
        return self._pid_in(node, "runtime.launcher")

    def process(self, name: str) -> processes.Process:
        """Of the control plane (`cp1`), etcd, the supervisor, the sweeper, or a node's machine."""
        found = cluster.existing(self.folder).processes.get(name)
        assert found is not None, f"{name} is not running"
        return found

    def _pid_in(self, node: str, module: str) -> int:
        def look() -> int | None:
            for pid in below(self.process(node).pid):
                words = processes.command_line(pid)
                runs = words[words.index("-m") + 1] if "-m" in words else ""  # a machine's line holds the agent's
                if runs == module and not _is_monitor(pid):
                    return pid
            return None

        return until(look, what=f"{node} runs {module}", timeout_s=10)


def _is_monitor(pid: int) -> bool:
    """Forked from the launcher, it has the launcher's command line, but a name of its own."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("orch-monitor")
    return True


def below(pid: int) -> Iterator[int]:
    """All descendants of a process."""
    for child in processes.children(pid):
        yield child
        yield from below(child)


def environment(config: str) -> dict[str, str]:
    return {**os.environ, "ORCH_CONFIG": config}


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """In memory, because etcd waits for its disk, and the disk of a busy machine takes its time."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="orch-e2e-", dir=memory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(
    *,
    nodes: int = 3,
    control_planes: int = 1,
    network_mode: str = "auto",
    addresses: str = "ipv4",
    resources: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[LocalCluster]:
    """A cluster with the images `hello` and `busybox`; it does not outlive this process."""
    with folder() as path:
        os.environ["ORCH_CONFIG"] = str(path / "config.yaml")
        state = path / "state"
        name = f"t{secrets.token_hex(3)}"
        try:
            record = cluster.up(
                cluster.Options(
                    name=name,
                    folder=state,
                    nodes=nodes,
                    control_planes=control_planes,
                    owner=os.getpid(),
                    network_mode=network_mode,
                    addresses=addresses,
                    resources=dict(resources),
                ),
                say=lambda _text: None,
            )
            up = LocalCluster(plan=record.plan)
            import_images(up, path)
            yield up
        finally:
            cluster.down(state)
            del os.environ["ORCH_CONFIG"]


def import_images(up: LocalCluster, path: Path) -> None:
    """The images that the examples name."""
    hello.write(path / "hello.tar")
    hello.write(path / "busybox.tar", plain=True)
    up.orchctl("image", "push", "--archive", str(path / "hello.tar"), "--name", "hello", "--cmd", hello.START)
    up.orchctl("image", "push", "--archive", str(path / "busybox.tar"), "--name", "busybox", "--cmd", "/bin/sh")


def get(address: str, *, port: int = hello.PORT, path: str = "/") -> str:
    """The body of the answer, once somebody listens."""

    def ask() -> str | None:
        connection = http.client.HTTPConnection(address, port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    return until(ask, what=f"{address}:{port} answers", timeout_s=10)


def answer_of(task: objects_pb2.Task, node_names: dict[str, str]) -> str:
    """What the image `hello` says in that task."""
    return f"task={task.meta.name} node={node_names[task.node_id]} slot={task.slot}\n"


def names_of(some: Sequence[objects_pb2.Task]) -> list[str]:
    return [task.meta.name for task in some]
