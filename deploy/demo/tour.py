"""The steps of the tour. Each is a few commands and the claims that they prove."""

import collections
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from deploy import hello
from deploy.demo import leftovers, stage
from deploy.local import cluster, plan, processes, record, tasks
from protos.orch.v1 import objects_pb2

SERVICE: Final = "hello"
NODES: Final = 3
REPLICAS: Final = 3
MORE_REPLICAS: Final = 9
_SOON_S: Final = 10.0
_NODE_LOSS_S: Final = 15.0
"""The promise is ten seconds; a busy machine gets a little more before the demo calls it a failure."""


class Tour:
    """The steps in their order; `run` walks through them."""

    def __init__(self, the_stage: stage.Stage, *, name: str) -> None:
        self._stage = the_stage
        self._name = name
        self._before = leftovers.look()
        self._record: record.Record | None = None
        self._namespaces: dict[str, int] = {}

    def run(self) -> None:
        """NotSeen at the first claim that does not come true."""
        steps: Sequence[Callable[[], None]] = (
            self._bring_up,
            self._make_image,
            self._apply,
            self._scale,
            self._kill_container,
            self._kill_node,
            self._follow_logs,
            self._exec,
            self._delete,
            self._take_down,
        )
        for step in steps:
            step()
            self._note_namespaces()

    def _bring_up(self) -> None:
        self._stage.title(f"A cluster of {NODES} nodes on this machine, each as separate as a virtual machine")
        began = time.monotonic()
        options = ["--name", self._name, "--nodes", str(NODES), "--state", str(self._stage.folder)]
        self._stage.type("orchctl", "cluster", "up", *options, "--owner-pid", str(os.getpid()))
        self._record = cluster.existing(self._stage.folder)
        self._stage.seen(f"{NODES} nodes are ready after {time.monotonic() - began:.1f} s")
        self._stage.type("orchctl", "node", "ls")

    def _make_image(self) -> None:
        self._stage.title("An image, without any registry: a web server made of Debian's busybox")
        tar = str(self._stage.folder / "hello.tar")
        self._stage.type("python", "-m", "deploy.hello", tar)
        self._stage.type("orchctl", "image", "push", "--archive", tar, "--name", SERVICE, "--cmd", hello.START)
        self._stage.type("orchctl", "get", "images")

    def _apply(self) -> None:
        self._stage.title(f"A service of {REPLICAS} replicas, from a manifest")
        self._stage.type("orchctl", "apply", "-f", "manifests/examples/hello.yaml")
        replicas = self._await_tasks(REPLICAS)
        self._stage.type("orchctl", "get", "tasks")
        nodes = {task.node_id for task in replicas}
        _claim(len(nodes) == NODES, f"the replicas are spread over {len(nodes)} nodes, not {NODES}")
        self._stage.seen(f"{REPLICAS} replicas run, one on each node")
        self._ask(replicas)

    def _scale(self) -> None:
        self._stage.title(f"More of it: {MORE_REPLICAS} replicas")
        began = time.monotonic()
        self._stage.type("orchctl", "scale", f"{SERVICE}={MORE_REPLICAS}")
        replicas = self._await_tasks(MORE_REPLICAS)
        self._stage.seen(f"{MORE_REPLICAS} replicas run after {time.monotonic() - began:.1f} s")
        per_node = collections.Counter(task.node_id for task in replicas)
        spread = sorted(per_node.values())
        _claim(spread == [MORE_REPLICAS // NODES] * NODES, f"the nodes have {spread} replicas, which is uneven")
        self._ask(replicas)

    def _kill_container(self) -> None:
        self._stage.title("A container dies; its agent starts it again, in place")
        before = self._await_tasks(MORE_REPLICAS)[1]
        pid = processes.first_of_container(before.meta.name)
        _claim(pid is not None, f"no process on this machine is process 1 of {before.meta.name}")
        began = time.monotonic()
        self._stage.type("kill", "-9", str(pid), note=f"process 1 of {before.meta.name}")
        after = stage.wait_for("the task runs again", lambda: self._restarted(before), timeout_s=_SOON_S)
        self._stage.seen(f"it runs again after {time.monotonic() - began:.2f} s: same task, same node, same address")
        _claim(after.node_id == before.node_id, "the task moved to another node")
        _claim(after.status.address == before.status.address, "the task has another address")
        self._ask([after])

    def _restarted(self, before: objects_pb2.Task) -> objects_pb2.Task | None:
        found = [task for task in tasks.running(self._plan, SERVICE) if task.meta.name == before.meta.name]
        return found[0] if found and found[0].status.restarts > before.status.restarts else None

    def _kill_node(self) -> None:
        self._stage.title("A whole node dies, as if its plug were pulled; the others take over")
        names = tasks.node_names(self._plan)
        lost = next(node_id for node_id, name in names.items() if name == "n2")
        began = time.monotonic()
        self._stage.type("orchctl", "cluster", "node", "kill", "n2", "--name", self._name, *self._state())
        replicas = stage.wait_for(
            f"{MORE_REPLICAS} replicas run on the other nodes",
            lambda: tasks.whole(self._plan, SERVICE, MORE_REPLICAS, but_not_on=lost),
            timeout_s=_NODE_LOSS_S,
        )
        self._stage.seen(f"all {MORE_REPLICAS} replicas run on the other two after {time.monotonic() - began:.1f} s")
        self._stage.type("orchctl", "node", "ls")
        self._stage.type("orchctl", "get", "tasks")
        self._ask(replicas)

    def _follow_logs(self) -> None:
        self._stage.title("The output of all replicas in one stream")
        replicas = self._await_tasks(MORE_REPLICAS)
        following = self._stage.follow("orchctl", "logs", "-f", "--tail", "1", SERVICE)
        try:
            following.wait_for("a first line", bool, timeout_s=_SOON_S)
            for task in replicas:
                _fetch(task)
            names = [task.meta.name for task in replicas]
            following.wait_for(
                "a line of each replica",
                lambda text: all(f"{name} answers" in text for name in names),
                timeout_s=_SOON_S,
            )
        finally:
            following.end()
        self._stage.seen("every replica said what it had answered, as it happened")

    def _exec(self) -> None:
        self._stage.title("A command inside a container")
        name = self._await_tasks(MORE_REPLICAS)[0].meta.name
        output = self._stage.type("orchctl", "exec", name, "--", "sh", "-c", "hostname; ps")
        _claim(name in output, "the container does not have the task's name as its host name")
        self._stage.type("orchctl", "exec", name, "--", "sh", "-c", "exit 3", expect=3, note="ends with 3")
        self._stage.seen("it ran inside, and its exit code came back")

    def _delete(self) -> None:
        self._stage.title("The service goes")
        self._stage.type("orchctl", "delete", "service", SERVICE)
        stage.wait_for(
            "no task is left", lambda: True if not tasks.running(self._plan, SERVICE) else None, timeout_s=_SOON_S
        )
        self._stage.type("orchctl", "get", "tasks")
        self._stage.seen("no task runs any more")

    def _take_down(self) -> None:
        self._stage.title("The cluster goes, and leaves nothing")
        assert self._record is not None, "the cluster was never up"
        self._stage.type("orchctl", "cluster", "down", "--name", self._name, *self._state())
        found = leftovers.find(self._record.plan, self._before, self._namespaces)
        _claim(not found, "something is left:\n" + "\n".join(found))
        self._stage.seen(
            f"nothing is left: none of its processes, mounts, {len(self._namespaces)} namespaces, links, "
            "control groups, nftables rules and files"
        )

    def _note_namespaces(self) -> None:
        """They have no names: to look for them later one has to have seen them."""
        if self._record is not None:
            self._namespaces |= leftovers.namespaces(self._record.plan)

    def _state(self) -> tuple[str, str]:
        return "--state", str(self._stage.folder)

    # -- looking

    @property
    def _plan(self) -> plan.Plan:
        assert self._record is not None, "the cluster was never up"
        return self._record.plan

    def _await_tasks(self, replicas: int) -> list[objects_pb2.Task]:
        def look() -> list[objects_pb2.Task] | None:
            return tasks.whole(self._plan, SERVICE, replicas)

        return stage.wait_for(f"{replicas} replicas run", look, timeout_s=_SOON_S)

    def _ask(self, replicas: Sequence[objects_pb2.Task]) -> None:
        """Ask each replica over HTTP, and compare what it says of itself with what the control plane says of it."""
        names = tasks.node_names(self._plan)
        for task in replicas:
            stage.wait_for(f"{task.meta.name} listens", lambda: _listens(task), timeout_s=_SOON_S)  # noqa: B023 - at once
        output = self._stage.type("curl", "-sS", "--max-time", "5", *(_url(task) for task in replicas))
        expected = [f"task={task.meta.name} node={names[task.node_id]} slot={task.slot}" for task in replicas]
        _claim(output.splitlines() == expected, "the answers differ from:\n" + "\n".join(expected))
        self._stage.seen(
            "it answers with its own task, node and slot" if len(replicas) == 1 else "each answers for itself"
        )


def _claim(holds: bool, otherwise: str) -> None:
    if not holds:
        raise stage.NotSeen(otherwise)


def _url(task: objects_pb2.Task) -> str:
    return f"http://{task.status.address}:{hello.PORT}/"


def _listens(task: objects_pb2.Task) -> bool | None:
    try:
        with socket.create_connection((task.status.address, hello.PORT), timeout=1):
            return True
    except OSError:
        return None


def _fetch(task: objects_pb2.Task) -> None:
    with socket.create_connection((task.status.address, hello.PORT), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(4096):
            continue
