"""Three control planes: whatever befalls the one that leads, another leads soon, and nothing that runs notices."""

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from deploy.local import cluster as local_cluster
from protos.orch.v1 import control_pb2
from tests.support import cluster, failover
from tests.support.cluster import LocalCluster, get, names_of
from tests.support.waiting import stays, until

pytestmark = pytest.mark.root

LEADS_S = 5.0
AGENTS_S = 2.0
BUSY_S = 5.0
"""What a machine that runs other tests meanwhile may add. `make bench ONLY=failover` fails by the marks themselves:
each of many rounds has to meet them, on a machine that does nothing else.
"""
REPLACE_AFTER_S = 1


@pytest.fixture(scope="module")
def trio() -> Iterator[LocalCluster]:
    """A cluster with three control planes and two nodes."""
    with cluster.running(nodes=2, control_planes=3) as up:
        yield up


class Steady:
    """A service that nothing may happen to."""

    def __init__(self, up: LocalCluster, name: str) -> None:
        self._up, self._name = up, name
        self._pids = {task: up.container_pid(task) for task in names_of(up.apply_hello(name, replicas=4))}

    def check(self) -> None:
        """The same processes, none of them restarted, and they answer."""
        replicas = self._up.await_whole(self._name, 4)
        assert {task.meta.name: self._up.container_pid(task.meta.name) for task in replicas} == self._pids
        assert not any(task.status.restarts for task in replicas)
        assert all(get(task.status.address) for task in replicas)

    def gone(self) -> None:
        """It is deleted at the end."""
        self._up.orchctl("delete", "service", self._name)


def check(times: failover.Times) -> None:
    """The promises of the design."""
    assert times.leads_s < LEADS_S + BUSY_S, times
    assert times.agents_s < AGENTS_S + BUSY_S, times


def test_a_leader_killed_is_followed_by_another(trio: LocalCluster) -> None:
    """No task restarts, and who asks for a change right afterwards gets it, whichever control plane it used to ask."""
    steady = Steady(trio, "killed")
    for _ in range(2):
        times = failover.measure(trio, functools.partial(failover.kill, trio), kills=True)
        check(times)
        steady.check()
    trio.orchctl("scale", "killed=5")
    trio.await_whole("killed", 5)
    steady.gone()


def test_a_frozen_leader_is_followed_by_another_and_writes_nothing_when_it_wakes(trio: LocalCluster) -> None:
    """It is deposed without knowing it. What it had begun is refused by the store, and it follows from then on."""
    steady = Steady(trio, "frozen")
    old = failover.leader_of(trio)
    with failover.frozen(trio, old):
        times = failover.measure(trio, functools.partial(failover.freeze, trio))
        check(times)
        steady.check()
        trio.apply_hello("meanwhile", replicas=3)
        trio.orchctl("scale", "frozen=2")
        kept = names_of(trio.await_whole("frozen", 2))
    until(lambda: _leader_by(trio, old) == times.leader, what=f"{old} follows")
    assert "this instance leads" not in _since_thawed(trio, old)
    assert names_of(trio.await_whole("frozen", 2)) == kept
    assert failover.leader_of(trio) == times.leader
    trio.orchctl("delete", "service", "meanwhile")
    steady.gone()


def _since_thawed(trio: LocalCluster, name: str) -> str:
    """What it has said since it lost its leadership, which it says once the store has its lease back."""
    log = trio.plan.log(name)
    until(lambda: "leadership lost" in log.read_text(), what=f"{name} has lost its leadership")
    return log.read_text().rpartition("leadership lost")[2]


def test_a_leader_that_is_cut_off_is_followed_by_another(trio: LocalCluster) -> None:
    """With its member of etcd. It stops leading by its own clock, serves what it knew, and follows once it is back."""
    steady = Steady(trio, "cut")
    old = failover.leader_of(trio)
    with failover.cut_off(trio, old):
        times = failover.measure(trio, functools.partial(failover.cut, trio))
        check(times)
        steady.check()
    until(lambda: _leader_by(trio, old) == times.leader, what=f"{old} follows", timeout_s=30)
    steady.check()
    steady.gone()


def _leader_by(trio: LocalCluster, name: str) -> str:
    """Who leads, by that instance; empty while it does not answer."""
    with contextlib.suppress(*failover.NO_ANSWER), failover.dialed(trio, name) as stub:
        return str(stub.Version(control_pb2.VersionRequest(), timeout=1).leader)
    return ""


@contextlib.contextmanager
def _killed(trio: LocalCluster, old: str) -> Iterator[failover.Times]:
    """The leader's process; it is started again."""
    del old
    yield failover.measure(trio, functools.partial(failover.kill, trio), kills=True)


@contextlib.contextmanager
def _frozen(trio: LocalCluster, old: str) -> Iterator[failover.Times]:
    """The leader's process, until the block ends."""
    with failover.frozen(trio, old):
        yield failover.measure(trio, functools.partial(failover.freeze, trio))


@contextlib.contextmanager
def _cut_off(trio: LocalCluster, old: str) -> Iterator[failover.Times]:
    """The leader's machine, with its member of etcd, until the block ends."""
    with failover.cut_off(trio, old):
        yield failover.measure(trio, functools.partial(failover.cut, trio))


@pytest.mark.parametrize("blow", [_killed, _frozen, _cut_off])
def test_a_rollout_goes_on_under_another_leader(
    trio: LocalCluster, blow: Callable[[LocalCluster, str], contextlib.AbstractContextManager[failover.Times]]
) -> None:
    """All that there is to know about it is in the store. It ends while the old leader is away, and stays as it is when
    that one is back.
    """
    name = f"rolled-{blow.__name__.strip('_').replace('_', '-')}"
    manifest = (
        f"kind: Service\nmeta: {{name: {name}}}\nspec:\n  replicas: 6\n"
        "  update: {maxUnavailable: 1, monitor: 500ms}\n"
        "  template:\n    stopGracePeriod: 1s\n    container: {image: hello, env: {COLOUR: %s}}\n"
    )
    trio.orchctl("apply", "-f", "-", text=manifest % "red")
    old = {task.revision_id for task in trio.await_whole(name, 6)}
    leader = failover.leader_of(trio)
    trio.orchctl("apply", "--detach", "-f", "-", text=manifest % "green")
    until(lambda: any(task.revision_id not in old for task in trio.tasks(name)), what="the rollout has begun")

    def done() -> list[str] | None:
        replicas = trio.await_whole(name, 6)
        return None if old & {task.revision_id for task in replicas} else names_of(replicas)

    with blow(trio, leader) as times:
        check(times)
        whole = until(done, what="all replicas are of the new revision", timeout_s=40)
    until(lambda: _leader_by(trio, leader) == failover.leader_of(trio), what=f"{leader} is back", timeout_s=30)
    assert done() == whole
    trio.orchctl("delete", "service", name)


def test_the_audit_log_is_the_same_by_every_control_plane(trio: LocalCluster) -> None:
    """Whichever was asked for the change."""
    for number, server in enumerate(trio.plan.servers):
        trio.orchctl("cluster", "token", "create", "--role=viewer", f"--person=p{number}", "--server", server)

    def told() -> list[str] | None:
        by_each = {server: trio.orchctl("get", "events", "--audit", "--server", server) for server in trio.plan.servers}
        (first, *others) = by_each.values()
        lines = [line for line in first.splitlines() if "CreateToken" in line]
        return lines if len(lines) == 3 and all(one == first for one in others) else None

    lines = until(told, what="all tell the same", timeout_s=20)
    assert [name for name in trio.plan.instance_names if any(f" {name} " in line for line in lines)] == [
        "cp1",
        "cp2",
        "cp3",
    ]


def test_without_a_quorum_everything_goes_on_and_nothing_changes(trio: LocalCluster) -> None:
    """Two of three members of etcd are gone: what runs runs on, and restarts; reads are answered, and say how old they
    are; changes are refused, and nothing is evicted, not even from a node that is silent for much longer than its tasks
    are waited for. Once one is back, so is everything else; and such a node loses its tasks.
    """
    steady = Steady(trio, "quorum")
    impatient = f"  onNodeLoss: {{replaceAfter: {REPLACE_AFTER_S}s}}\n"
    victim = trio.apply_hello("victim", replicas=1, more=impatient)[0].meta.name
    pid = trio.container_pid(victim)
    for lost in ("cp2", "cp3"):
        local_cluster.kill_node(trio.folder, lost)
    refusal = until(lambda: _refusal(trio), what="a change is refused", timeout_s=40)
    assert "store" in refusal or "etcd" in refusal, refusal
    assert "running containers are not affected" in refusal, refusal
    os.kill(pid, signal.SIGKILL)
    again = until(lambda: _another(trio, victim, pid), what="its agent starts it again", timeout_s=20)
    shown = trio.run("get", "services")
    assert "quorum" in shown.stdout
    assert "the store is out of reach; this is as of" in shown.stderr
    assert "has not answered" in trio.orchctl("version")
    with _silent(trio, trio.task(victim).node_id):
        stays(lambda: trio.container_pid(victim) == again, what="it runs", lasting_s=8 * REPLACE_AFTER_S)
    for lost in ("cp2", "cp3"):
        local_cluster.start_node(trio.folder, lost)
    until(lambda: not _refusal(trio), what="changes are taken again", timeout_s=60)
    steady.check()
    steady.gone()
    (kept,) = trio.await_whole("victim", 1)
    assert kept.meta.name == victim, "another took its place"
    with _silent(trio, kept.node_id):
        until(lambda: names_of(trio.await_whole("victim", 1)) != [victim], what="another has its place", timeout_s=30)
    trio.orchctl("delete", "service", "victim")


def _another(trio: LocalCluster, task: str, pid: int) -> int:
    """The task's process; 0 while it is still that one."""
    found = trio.container_pid(task)
    return 0 if found == pid else found


@contextlib.contextmanager
def _silent(trio: LocalCluster, node_id: str) -> Iterator[None]:
    """The node's agent stands still inside the block."""
    (node,) = [one.name for one in trio.nodes().values() if one.id == node_id]
    agent = trio.agent_pid(node)
    os.kill(agent, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent, signal.SIGCONT)


def _refusal(trio: LocalCluster) -> str:
    """Why a change is refused; empty when it is done."""
    began = time.monotonic()
    done = trio.run("annotate", "service", "victim", f"at={began}", "--overwrite")
    return done.stderr if done.returncode else ""
