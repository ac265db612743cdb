"""What becomes of a service on a cluster of three nodes, beside Docker Swarm on the same machine: updates, scaling,
crashes, an emptied node, a lost one.

Both run the same image with the same command and the same policy: new tasks first, one at a time of ten and ten of a
hundred. Swarm's containers are on the host's network, which is its fastest; ours get a network namespace and an address
each. Swarm has one node but where several are needed; then it has three, too, each a daemon in namespaces of its own.
"""

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deploy.local import cluster as local
from deploy.local import processes, tasks, trust
from protos import states
from protos.orch.v1 import control_pb2, objects_pb2
from tests.bench.measure import Case
from tests.support import cluster, swarm
from tests.support.waiting import until

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub

FEW, MANY, ON_A_NODE = 10, 100, 30
REPLACE_AFTER_MS = 3_000
TIMEOUT_S = 180
_numbers = itertools.count(1)


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Both clusters are up inside the block."""
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(cluster.running())
        ours = Ours(up, stack.enter_context(trust.reach(up.plan)))
        peer = Peer(stack.enter_context(swarm.running()), stack) if swarm.available() else None
        if peer is None:
            print("bench: no dockerd on PATH: ours alone (apt-get install docker.io)", file=sys.stderr)
        yield _cases(ours, peer)


def _cases(ours: "Ours", peer: "Peer | None") -> list[Case]:
    def timed(name: str, method: str, rounds: int, mark: float | None = None) -> Case:
        return Case(
            name=f"service.{name}",
            unit="s",
            ours=getattr(ours, method),
            peer=getattr(peer, method, None),
            peer_name="swarm",
            rounds=rounds,
            mark=mark,
            rested=True,
        )

    return [
        timed("update_10", "update_few", rounds=2, mark=2.0),
        timed("update_100", "update_many", rounds=1),
        timed("scale_0_to_100", "scale_up", rounds=3, mark=2.0),
        timed("scale_100_to_0", "scale_down", rounds=3),
        timed("crash_to_running", "crash", rounds=3, mark=0.3),
        timed("drain_of_30", "drain", rounds=2),
        timed("node_loss_to_whole", "node_loss", rounds=2, mark=6.0),
    ]


class Ours:
    """The product, asked over gRPC, on one connection: who asks fifty times a second is part of the load."""

    def __init__(self, up: cluster.LocalCluster, control: "ControlStub") -> None:
        self._up = up
        self._plan = up.plan
        self._control = control

    def update_few(self) -> float:
        """From the call until ten tasks are of the new revision, and no other is left."""
        return self._update(FEW, at_a_time=1)

    def update_many(self) -> float:
        """The same of a hundred."""
        return self._update(MANY, at_a_time=10)

    def _update(self, replicas: int, *, at_a_time: int) -> float:
        with self._service(replicas, at_a_time) as name:
            (before,) = {task.revision_id for task in tasks.working(self._tasks(name))}

            def is_done() -> bool:
                left = [one for one in self._tasks(name) if not states.is_terminal(one.status.state)]
                fresh = [one for one in left if one.revision_id != before and one.status.ready]
                return len(fresh) == len(left) == replicas

            with _timer() as took:
                self._apply(_service(name, replicas, at_a_time, version="2"))
                _await(is_done, f"{name} is updated")
        return took[0]

    def scale_up(self) -> float:
        """From the call until a hundred run and are ready."""
        with self._service(0) as name, _timer() as took:
            self._scale(name, MANY)
            _await(lambda: tasks.each_once(self._tasks(name), MANY), f"{name} is whole", every_s=0.05)
            took.stop()
        return took[0]

    def scale_down(self) -> float:
        """From the call until none of a hundred is left."""
        with self._service(MANY) as name, _timer() as took:
            self._scale(name, 0)
            _await(lambda: not self._left(name), f"{name} is empty")
            took.stop()
        return took[0]

    def crash(self) -> float:
        """From `kill -9` of process 1 until there is another."""
        with self._service(1) as name:
            task = tasks.working(self._tasks(name))[0].meta.name
            before = self._up.container_pid(task)
            with _timer() as took:
                os.kill(before, signal.SIGKILL)
                _await(lambda: processes.first_of_container(task) not in {None, before}, "another process", 0.002)
        return took[0]

    def drain(self) -> float:
        """From the call until a node with thirty tasks is empty, and all of them work elsewhere."""
        with self._service(3 * ON_A_NODE) as name:
            node = self._up.nodes()["n2"]
            with _timer() as took:
                self._set("n2", objects_pb2.AVAILABILITY_DRAIN)
                _await(lambda: not self._left(name, node.id), "the node is empty")
                _await(lambda: tasks.each_once(self._tasks(name), 3 * ON_A_NODE), f"{name} is whole")
            self._set("n2", objects_pb2.AVAILABILITY_ACTIVE)
        return took[0]

    def node_loss(self) -> float:
        """From the death of a machine until what it ran works elsewhere."""
        with self._service(FEW) as name:
            lost = self._up.nodes()["n2"].id
            with _timer() as took:
                local.kill_node(self._up.folder, "n2")
                _await(lambda: tasks.each_once(self._tasks(name, but_not_on=lost), FEW), f"{name} is whole")
            local.start_node(self._up.folder, "n2")
            until(lambda: self._up.nodes()["n2"].state == "ready", what="n2 is back", timeout_s=TIMEOUT_S)
        return took[0]

    @contextlib.contextmanager
    def _service(self, replicas: int, at_a_time: int = 1) -> Iterator[str]:
        """One that is whole; gone afterwards."""
        name = f"bench{next(_numbers)}"
        self._apply(_service(name, replicas, at_a_time))
        until(
            lambda: tasks.each_once(self._tasks(name), replicas) is not None, what=f"{name} runs", timeout_s=TIMEOUT_S
        )
        try:
            yield name
        finally:
            self._control.Delete(control_pb2.DeleteRequest(reference=_reference(name)))
            until(lambda: not self._tasks(name), what=f"{name} is gone", timeout_s=TIMEOUT_S)

    def _tasks(self, name: str, *, but_not_on: str = "") -> list[objects_pb2.Task]:
        return [task for task in tasks.listed(self._control, name) if task.node_id != but_not_on]

    def _left(self, name: str, node_id: str = "") -> list[objects_pb2.Task]:
        """Tasks that have not ended: of a node, or of all."""
        there = (one for one in self._tasks(name) if node_id in {"", one.node_id})
        return [one for one in there if not states.is_terminal(one.status.state)]

    def _apply(self, wanted: objects_pb2.Object) -> None:
        self._control.Apply(control_pb2.ApplyRequest(objects=[wanted]))

    def _scale(self, name: str, replicas: int) -> None:
        self._control.Scale(control_pb2.ScaleRequest(reference=_reference(name), replicas=replicas))

    def _set(self, node: str, availability: objects_pb2.Availability.ValueType) -> None:
        self._control.UpdateNode(control_pb2.UpdateNodeRequest(node=node, availability=availability))


class Peer:
    """Docker Swarm, asked over its HTTP interface. `stack` ends its further machines, which are there once they are
    needed: idle daemons would be in the way of whoever is measured before.
    """

    def __init__(self, up: swarm.Swarm, stack: contextlib.ExitStack) -> None:
        self._up = up
        self._stack = stack

    def update_few(self) -> float:
        """As ours."""
        return self._update(FEW, at_a_time=1)

    def update_many(self) -> float:
        """As ours."""
        return self._update(MANY, at_a_time=10)

    def _update(self, replicas: int, *, at_a_time: int) -> float:
        with self._service(replicas) as name:
            before = set(self._up.running(name))
            wanted = swarm.service(name, replicas, "hello")
            wanted["TaskTemplate"]["ContainerSpec"]["Env"] = ["VERSION=2"]
            wanted["UpdateConfig"] = {"Parallelism": at_a_time, "Order": "start-first", "Delay": 0, "Monitor": 0}
            with _timer() as took:
                self._change(name, wanted)
                _await(
                    lambda: len(there := set(self._up.running(name))) == replicas and not there & before,
                    f"{name} is updated",
                )
        return took[0]

    def scale_up(self) -> float:
        """As ours."""
        with self._service(0) as name, _timer() as took:
            self._change(name, swarm.service(name, MANY, "hello"))
            self._up.await_running(name, MANY)
            took.stop()
        return took[0]

    def scale_down(self) -> float:
        """As ours: until the last container has gone."""
        with self._service(MANY) as name, _timer() as took:
            self._change(name, swarm.service(name, 0, "hello"))
            _await(lambda: not self._up.ask("GET", "/containers/json"), f"{name} is empty")
            took.stop()
        return took[0]

    def crash(self) -> float:
        """As ours; Swarm makes another container, after its delay of five seconds."""
        with self._service(1) as name:
            (before,) = self._up.running(name)
            pid = until(lambda: processes.first_of_container(before), what="the container has a process", timeout_s=10)
            with _timer() as took:
                os.kill(pid, signal.SIGKILL)
                _await(lambda: [one for one in self._up.running(name) if one != before], "another container", 0.005)
        return took[0]

    @cached_property
    def _fleet(self) -> swarm.Fleet:
        return self._stack.enter_context(swarm.fleet(workers=2))

    def drain(self) -> float:
        """As ours."""
        manager, worker = self._fleet.manager, self._fleet.workers[-1]
        node_id = worker.node_id
        with _served(manager, 3 * ON_A_NODE, self._fleet.workers) as name:
            with _timer() as took:
                manager.set_availability(node_id, "drain")
                _await(lambda: _is_whole_without(manager, name, 3 * ON_A_NODE, node_id), f"{name} is whole elsewhere")
                _await(lambda: not worker.ask("GET", "/containers/json"), "the node is empty")
            manager.set_availability(node_id, "active")
        return took[0]

    def node_loss(self) -> float:
        """As ours; Swarm waits for three heartbeats, of five seconds each."""
        manager, worker = self._fleet.manager, self._fleet.workers.pop()
        lost = worker.node_id
        with _served(manager, FEW, self._fleet.workers) as name, _timer() as took:
            worker.kill()
            _await(lambda: _is_whole_without(manager, name, FEW, lost), f"{name} is whole elsewhere")
            took.stop()
        self._fleet.forget(lost)
        self._fleet.add_worker()
        return took[0]

    def _change(self, name: str, wanted: dict[str, Any]) -> None:
        """Again when Swarm itself has written the service since it was read."""

        def is_taken() -> bool:
            version = self._up.ask("GET", f"/services/{name}")["Version"]["Index"]
            try:
                self._up.ask("POST", f"/services/{name}/update?version={version}", wanted)
            except AssertionError as refusal:
                if "out of sequence" not in str(refusal):
                    raise
                return False
            return True

        _await(is_taken, f"{name} is changed", 0.005)

    def _service(self, replicas: int) -> contextlib.AbstractContextManager[str]:
        return _served(self._up, replicas)


@contextlib.contextmanager
def _served(up: swarm.Swarm, replicas: int, workers: Sequence[swarm.Swarm] = ()) -> Iterator[str]:
    """A service of Swarm's that is whole; gone afterwards, from the manager and the workers."""
    name = f"bench{next(_numbers)}"
    up.create(name, replicas)
    _await(lambda: len(up.running(name)) == replicas, f"swarm runs {replicas} of {name}")
    try:
        yield name
    finally:
        up.delete(name)
        for worker in workers:
            worker.await_empty()


def _is_whole_without(up: swarm.Swarm, name: str, replicas: int, node_id: str) -> bool:
    """All of the service's tasks run, and none of them on a node."""
    homes = up.homes(name)
    return homes.total() == replicas and not homes[node_id]


class _Took(list[float]):
    """Seconds, once the clock was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()

    def stop(self) -> None:
        """The first time counts: what is cleaned up afterwards is not measured."""
        self.append(time.perf_counter() - self._began)


@contextlib.contextmanager
def _timer() -> Iterator[_Took]:
    took = _Took()
    yield took
    took.stop()


def _await(condition: Callable[[], object], what: str, every_s: float = 0.02) -> None:
    until(condition, what=what, timeout_s=TIMEOUT_S, every_s=every_s)


def _service(name: str, replicas: int, at_a_time: int, version: str = "1") -> objects_pb2.Object:
    container = objects_pb2.Container(image="busybox", command=["/bin/sleep", "100000"], stop_signal="SIGKILL")
    container.env["VERSION"] = version
    update = objects_pb2.UpdatePolicy(parallelism=at_a_time, order=objects_pb2.UPDATE_ORDER_START_FIRST)
    spec = objects_pb2.ServiceSpec(
        replicas=replicas,
        template=objects_pb2.TaskTemplate(container=container),
        update=update,
        on_node_loss=objects_pb2.NodeLossPolicy(replace_after=REPLACE_AFTER_MS),
    )
    meta = objects_pb2.Meta(name=name, namespace="default")
    return objects_pb2.Object(service=objects_pb2.Service(meta=meta, spec=spec))


def _reference(name: str) -> control_pb2.ObjectReference:
    return control_pb2.ObjectReference(kind="service", namespace="default", name=name)
