"""The network of a cluster of two nodes: what a service's address costs beside its task's, and when changes count.

The server and the client are the same on both sides of every comparison: it is the paths that are compared. A request
through the virtual address or a published port is held against one to the task itself, from the same client; one to a
port from outside, against the same image behind a port that Docker publishes on a third machine of the segment.

What a change costs a node with 1,000 services is a case of `plane`; what answers of the name server take, of `names`.
"""

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploy.local import network, trust
from protos.orch.v1 import control_pb2
from protos.orch.v1 import objects_pb2 as pb
from tests.bench import _load, _server
from tests.bench.measure import Case
from tests.support import cluster, swarm
from tests.support.waiting import until

PUBLISHED = 18070
ROUNDS, CHANGES = 7, 5
MARK = 1 / 0.95  # of the time that a request to the task itself takes
SOON_MS = 200
SETTLE_S = 1.0
DOCKERS_PLACE = 99
TIMEOUT_S = 30
MANIFEST = """\
kind: Service
meta: {name: %s}
spec:
  replicas: %d
  template:
    drainSeconds: 2
    container:
      image: server
      command: [/serve]
      ports: [{name: http, target: 8080%s}]
      probes: {readiness: {http: {port: http, path: /name}, interval: 1s}}
"""
CLIENT = "kind: Service\nmeta: {name: client}\nspec:\n  replicas: 2\n  template:\n    container: {image: busybox, %s}\n"


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """The cluster, and Docker where it is installed, are up inside the block."""
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(cluster.running(nodes=2))
        docker = _docker(stack, up) if swarm.available() else ""
        if not docker:
            print("bench: no dockerd on PATH: ours alone (apt-get install docker.io)")
        ours = Ours(up)
        yield [*ours.paths(), *ours.from_outside(docker), *ours.changes()]


class Ours:
    """A server on one node, and a client on each."""

    def __init__(self, up: cluster.LocalCluster) -> None:
        self._up = up
        image = up.folder / "server.tar"
        _server.write(image)
        up.orchctl("image", "push", "--archive", str(image), "--name", "server", "--cmd", _server.START)
        up.orchctl("apply", "-f", "-", text=MANIFEST % ("server", 1, f", published: {PUBLISHED}"))
        up.orchctl("apply", "-f", "-", text=CLIENT % 'command: [/bin/sleep, "100000"]')
        up.orchctl("apply", "-f", "-", text=MANIFEST % ("changing", 0, ""))
        (self._task,) = up.await_whole("server", 1)
        clients = up.await_whole("client", 2)
        self._places = {task.node_id: _namespace(up.container_pid(task.meta.name)) for task in clients}
        assert len(self._places) == 2, "the clients are on one node"
        self._addresses = {node.id: node.address for node in up.nodes().values()}

    def paths(self) -> list[Case]:
        """Against the task itself, on its node and from the other one."""
        here = self._task.node_id
        (there,) = self._places.keys() - {here}
        virtual = self._virtual("server")
        found = []
        for where, node in (("same_node", here), ("across", there)):
            place = self._places[node]
            direct = _wrk(place, self._task.status.address, _server.PORT)
            found += _compared(f"virtual_{where}", _wrk(place, virtual, _server.PORT), direct, "the task itself")
            through = _wrk(place, self._addresses[node], PUBLISHED)
            found += _compared(f"published_{where}", through, direct, "the task itself")
            anew = _wrk(place, virtual, _server.PORT, new_connections=True)
            direct_anew = _wrk(place, self._task.status.address, _server.PORT, new_connections=True)
            found += _compared(f"new_connections_{where}", anew, direct_anew, "the task itself")
        return found

    def from_outside(self, docker: str) -> list[Case]:
        """A published port beside Docker's, asked by the control plane's machine, which is no node."""
        outside = _namespace(self._up.process("cp1").pid)
        ours = _wrk(outside, self._addresses[self._task.node_id], PUBLISHED)
        peer = _wrk(outside, docker, PUBLISHED) if docker else None
        return _compared("outside", ours, peer, "docker -p", mark=1.0)

    def changes(self) -> list[Case]:
        """How soon the nodes know."""
        return [
            _soon("ready_to_answer_on_another_node", self._comes, "from the leader's word"),
            _soon("gone_to_no_new_connection", self._goes, "from the call"),
        ]

    def _comes(self) -> float:
        """Milliseconds from a task's being ready to the first answer that the other node's client got from it."""
        with self._asking("changing") as asking, self._watched("changing") as events:
            self._scale("changing", 1)
            ready = next(task for task in events if task.status.ready)
            at = time.perf_counter()
            other = next(one for node, one in asking.items() if node != ready.node_id)
            first = until(lambda: other.first(lambda _answer: True), what="the other node answers", timeout_s=TIMEOUT_S)
        self._scale("changing", 0)
        until(lambda: not self._up.tasks("changing"), what="it has gone", timeout_s=TIMEOUT_S)
        return max(0.0, first.at - at) * 1000

    def _goes(self) -> float:
        """Milliseconds from the call that takes a task away to the last answer that anybody got from it anew."""
        self._scale("changing", 2)
        self._up.await_whole("changing", 2)
        with self._asking("changing") as asking, self._watched("changing") as events:
            until(lambda: len(_heard(asking)) == 2, what="both tasks answer", timeout_s=TIMEOUT_S)
            at = time.perf_counter()
            self._scale("changing", 1)
            leaving = next(task for task in events if task.desired_state >= pb.DESIRED_STATE_SHUTDOWN)
            time.sleep(SETTLE_S)
        answers = [answer for one in asking.values() for answer in one.answers]
        last = max(answer.at for answer in answers if answer.task == leaving.meta.name)
        assert last < at + SETTLE_S, "it was asked all the time"
        self._scale("changing", 0)
        until(lambda: not self._up.tasks("changing"), what="they have gone", timeout_s=TIMEOUT_S)
        return (last - at) * 1000

    @contextlib.contextmanager
    def _asking(self, service: str) -> Iterator[dict[str, _load.Asking]]:
        """By the id of the node that is asked on."""
        address = self._virtual(service)
        with contextlib.ExitStack() as stack:
            yield {
                node: stack.enter_context(_load.Asking(place, address).going_on())
                for node, place in self._places.items()
            }

    @contextlib.contextmanager
    def _watched(self, service: str) -> Iterator[Iterator[pb.Task]]:
        """The service's tasks as they change, with nothing missed from here on."""
        request = control_pb2.WatchRequest(selections=[control_pb2.ListRequest(kind="task", service=service)])
        with trust.reach(self._up.plan) as control:
            call = control.Watch(request, timeout=TIMEOUT_S)
            events = iter(call)
            next(events)
            yield (event.changed.task for event in events if event.HasField("changed"))
            call.cancel()  # type: ignore[no-untyped-call]

    def _scale(self, service: str, replicas: int) -> None:
        reference = control_pb2.ObjectReference(kind="service", namespace="default", name=service)
        with trust.reach(self._up.plan) as control:
            control.Scale(control_pb2.ScaleRequest(reference=reference, replicas=replicas), timeout=TIMEOUT_S)

    def _virtual(self, service: str) -> str:
        with trust.reach(self._up.plan) as control:
            reference = control_pb2.ObjectReference(kind="endpoints", namespace="default", name=service)
            answer = control.Get(control_pb2.GetRequest(reference=reference), timeout=TIMEOUT_S)
        return answer.endpoints.status.address


def _heard(asking: dict[str, _load.Asking]) -> set[str]:
    return {answer.task for one in asking.values() for answer in one.answers}


def _docker(stack: contextlib.ExitStack, up: cluster.LocalCluster) -> str:
    """Docker as a third machine of the segment, with a container that publishes the port; its address."""
    engine = stack.enter_context(swarm.running(bridge=True))
    segment = ipaddress.ip_network(up.plan.lan.network)
    address = str(segment[DOCKERS_PLACE])
    lan, inside = _namespace(up.process("cp1").pid), _namespace(engine.daemon_pid)
    with lan.open() as there, network.inside(there.fileno()):
        network.ip(f"link add docker type veth peer name eth0 netns {engine.daemon_pid}")
        network.ip(f"link set docker master {network.BRIDGE} up")
    with inside.open() as there, network.inside(there.fileno()):
        network.ip(f"addr add {address}/{segment.prefixlen} dev eth0", "link set eth0 up")
    image = up.folder / "docker-server.tar"
    _server.write(image)
    engine.ask("POST", "/images/create?fromSrc=-&repo=server", raw=image.read_bytes())
    port = f"{_server.PORT}/tcp"
    wanted = {
        "Image": "server",
        "Cmd": [_server.START],
        "ExposedPorts": {port: {}},
        "HostConfig": {"PortBindings": {port: [{"HostPort": str(PUBLISHED)}]}},
    }
    container = engine.ask("POST", "/containers/create", wanted)["Id"]
    engine.ask("POST", f"/containers/{container}/start")
    with lan.open() as there, network.inside(there.fileno()):
        until(lambda: "docker" in cluster.get(address, port=PUBLISHED, path=_server.PATH), what="docker's answers")
    return address


def _namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


Run = Callable[[], _load.Load]


def _wrk(place: Path, address: str, port: int, *, new_connections: bool = False) -> Run:
    return lambda: _load.run(place, address, port, new_connections=new_connections)


class _Kept:
    """Runs once a round, for the first case, and remembers for the others."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._found: list[_load.Load] = []
        self._told = 0

    def per_request(self) -> float:
        self._found.append(self._run())
        return self._found[-1].per_request

    def p50(self) -> float:
        return self._next().p50

    def p99(self) -> float:
        return self._next().p99

    def _next(self) -> _load.Load:
        self._told += 1
        return self._found[(self._told - 1) % len(self._found)]


def _compared(name: str, ours: Run, peer: Run | None, peer_name: str, *, mark: float = MARK) -> list[Case]:
    """Time for each request, which has a mark, and what half and nearly all of the requests took, of the same runs."""
    mine, theirs = _Kept(ours), _Kept(peer) if peer else None

    def case(what: str, method: str, unit: str, ratio_mark: float | None = None) -> Case:
        other = getattr(theirs, method) if theirs else None
        return Case(
            name=f"network.{name}.{what}",
            unit=unit,
            ours=getattr(mine, method),
            peer=other,
            peer_name=peer_name,
            rounds=ROUNDS,
            ratio_mark=ratio_mark,
        )

    return [case("time_a_request", "per_request", "µs", mark), case("p50", "p50", "ms"), case("p99", "p99", "ms")]


def _soon(name: str, measure: Callable[[], float], peer_name: str) -> Case:
    return Case(
        name=f"network.{name}", unit="ms", ours=measure, peer=None, peer_name=peer_name, rounds=CHANGES, mark=SOON_MS
    )
