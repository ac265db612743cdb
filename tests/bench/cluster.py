"""A cluster of one node beside Docker Swarm on the same machine: how soon things run, and how much memory it takes.

Both run the same image with the same command. Swarm's containers are on the host's network, which is its fastest; ours
get a network namespace and an address each. Images are there before anything is measured.
"""

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.local import processes, tasks, trust
from protos.orch.v1 import control_pb2, objects_pb2
from tests.bench.measure import Case
from tests.support import cluster, swarm
from tests.support.waiting import until

MANY = 100
TIMEOUT_S = 120
_numbers = itertools.count(1)


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Both clusters are up inside the block."""
    with contextlib.ExitStack() as stack:
        ours = Ours(stack.enter_context(cluster.running(nodes=1)))
        peer = Peer(stack.enter_context(swarm.running())) if swarm.available() else None
        if peer is None:
            print("bench: no dockerd on PATH: ours alone (apt-get install docker.io)", file=sys.stderr)
        yield _cases(ours, peer)


def _cases(ours: "Ours", peer: "Peer | None") -> list[Case]:
    def timed(name: str, method: str, rounds: int, mark: float) -> Case:
        other = getattr(peer, method) if peer else None
        return Case(
            name=name, unit="s", ours=getattr(ours, method), peer=other, peer_name="swarm", rounds=rounds, mark=mark
        )

    def memory(name: str, process: str, mark: float) -> Case:
        other = peer.memory_mb if peer else None
        return Case(
            name=name,
            unit="MB",
            ours=lambda: ours.memory_mb(process),
            peer=other,
            peer_name="dockerd",
            rounds=1,
            mark=mark,
        )

    return [
        timed("cluster.call_to_running", "one", rounds=7, mark=0.3),
        timed("cluster.scale_0_to_100", "many", rounds=3, mark=6.0),
        timed("cluster.crash_to_running", "crash", rounds=3, mark=0.5),
        memory("cluster.memory_agent_100_tasks", "agent", mark=80.0),
        memory("cluster.memory_control_plane_100_tasks", "cp1", mark=120.0),
    ]


class Ours:
    """The product, asked over gRPC."""

    def __init__(self, up: cluster.LocalCluster) -> None:
        self._up = up

    def one(self) -> float:
        """From the call until one replica runs."""
        return self._run(1)

    def many(self) -> float:
        """From the call until a hundred run."""
        return self._run(MANY)

    def _run(self, replicas: int) -> float:
        name = f"bench{next(_numbers)}"
        with trust.reach(self._up.plan) as control:
            request = control_pb2.WatchRequest(selections=[control_pb2.ListRequest(kind="task", service=name)])
            call = control.Watch(request, timeout=TIMEOUT_S)
            events = iter(call)
            next(events)  # in place before the clock starts
            began = time.perf_counter()
            control.Apply(control_pb2.ApplyRequest(objects=[_service(name, replicas)]))
            running: set[str] = set()
            for event in events:
                if event.changed.task.status.state == objects_pb2.TASK_STATE_RUNNING:
                    running.add(event.changed.task.meta.id)
                if len(running) == replicas:
                    break
            took = time.perf_counter() - began
            call.cancel()  # type: ignore[no-untyped-call]
        assert len(running) == replicas, f"{len(running)} of {replicas} run"
        self._delete(name)
        return took

    def crash(self) -> float:
        """From `kill -9` of process 1 until there is another."""
        name = f"bench{next(_numbers)}"
        self._apply(name, 1)
        task = tasks.running(self._up.plan, name)[0].meta.name
        before = self._up.container_pid(task)
        os.kill(before, signal.SIGKILL)
        began = time.perf_counter()
        until(
            lambda: pid if (pid := processes.first_of_container(task)) != before else None,
            what="another process",
            timeout_s=TIMEOUT_S,
            every_s=0.002,
        )
        took = time.perf_counter() - began
        self._delete(name)
        return took

    def memory_mb(self, process: str) -> float:
        """Resident memory with a hundred tasks, after they have settled."""
        name = f"bench{next(_numbers)}"
        self._apply(name, MANY)
        pid = self._up.agent_pid("n1") if process == "agent" else self._up.process(process).pid
        found = resident_mb(pid)
        self._delete(name)
        return found

    def _apply(self, name: str, replicas: int) -> None:
        with trust.reach(self._up.plan) as control:
            control.Apply(control_pb2.ApplyRequest(objects=[_service(name, replicas)]))
        self._up.await_whole(name, replicas, timeout_s=TIMEOUT_S)

    def _delete(self, name: str) -> None:
        with trust.reach(self._up.plan) as control:
            reference = control_pb2.ObjectReference(kind="service", namespace="default", name=name)
            control.Delete(control_pb2.DeleteRequest(reference=reference))
        until(lambda: not tasks.ask(self._up.plan, name), what=f"{name} is gone", timeout_s=TIMEOUT_S)


class Peer:
    """Docker Swarm, asked over its HTTP interface."""

    def __init__(self, up: swarm.Swarm) -> None:
        self._up = up

    def one(self) -> float:
        """As ours."""
        return self._run(1)

    def many(self) -> float:
        """As ours."""
        return self._run(MANY)

    def _run(self, replicas: int) -> float:
        name = f"bench{next(_numbers)}"
        began = time.perf_counter()
        self._up.create(name, replicas)
        self._up.await_running(name, replicas)
        took = time.perf_counter() - began
        self._up.delete(name)
        return took

    def crash(self) -> float:
        """As ours; Swarm makes another container, after its delay of five seconds."""
        name = f"bench{next(_numbers)}"
        self._up.create(name, 1)
        (before,) = self._up.await_running(name, 1)
        pid = until(lambda: processes.first_of_container(before), what="the container has a process", timeout_s=10)
        os.kill(pid, signal.SIGKILL)
        began = time.perf_counter()
        until(
            lambda: [one for one in self._up.running(name) if one != before],
            what="another container",
            timeout_s=TIMEOUT_S,
            every_s=0.005,
        )
        took = time.perf_counter() - began
        self._up.delete(name)
        return took

    def memory_mb(self) -> float:
        """Of dockerd, which is Swarm's agent and control plane in one; its containerd and shims are not counted."""
        name = f"bench{next(_numbers)}"
        self._up.create(name, MANY)
        self._up.await_running(name, MANY)
        found = resident_mb(self._up.daemon_pid)
        self._up.delete(name)
        return found


def _service(name: str, replicas: int) -> objects_pb2.Object:
    container = objects_pb2.Container(image="busybox", command=["/bin/sleep", "100000"], stop_signal="SIGKILL")
    template = objects_pb2.TaskTemplate(container=container)
    spec = objects_pb2.ServiceSpec(replicas=replicas, template=template)
    meta = objects_pb2.Meta(name=name, namespace="default")
    return objects_pb2.Object(service=objects_pb2.Service(meta=meta, spec=spec))


def resident_mb(pid: int) -> float:
    """VmRSS in megabytes (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kib * 1024 / 1e6
