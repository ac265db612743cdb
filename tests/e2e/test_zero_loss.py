"""No request is lost, whatever a person or a failure of ours does to a service: only what its own program does counts.

Ten replicas on three nodes, asked through every node's published port and through the virtual address, on new
connections and on kept ones. A request that is refused, reset, not answered in time, or answered with anything but 200
is lost, and is listed with its moment and kind.
"""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from deploy.local import tasks
from protos import states
from tests.support import webclients, webimage
from tests.support.cluster import LocalCluster, names_of
from tests.support.waiting import until
from tests.support.webclients import Clients
from tests.support.webserver import PORT

pytestmark = pytest.mark.root

PUBLISHED = 18090
REPLICAS = 10
SOON_S = 0.2
BUSY_S = 0.8
"""What a machine that runs other tests meanwhile may add."""
MANIFEST = """\
kind: Service
meta: {{name: web}}
spec:
  replicas: {replicas}
  template:
    drainSeconds: 0
    stopGracePeriod: 5s
    container:
      image: web
      env: {{ALSO_PORT: "{port}"}}
      ports:
        - {{name: inside, target: 8080}}
        - {{name: http, target: {port}, published: 18090, mode: ingress}}
      probes:
        readiness: {{http: {{port: http, path: /ready}}, interval: 500ms}}
"""


def apply(local: LocalCluster, port: int) -> list[str]:
    """Names of the tasks, once all are there. `port`: where they take what comes to the published one."""
    text = MANIFEST.format(port=port, replicas=REPLICAS)
    local.orchctl("apply", "-f", "-", "--timeout", "60s", text=text)
    return names_of(local.await_whole("web", REPLICAS, timeout_s=40))


@pytest.fixture(scope="module")
def clients(local: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    image = tmp_path_factory.mktemp("web") / "web.tar"
    webimage.write(image)
    local.orchctl("image", "push", "--archive", str(image), "--name", "web", "--cmd", webimage.SERVER)
    apply(local, 8081)
    virtual = f"{local.service('web').status.address}:{PORT}"
    with webclients.load(local, virtual=virtual, published=PUBLISHED) as under_load:
        until(lambda: len(under_load.outside.standing.get("by_task", ())) == REPLICAS, what="all replicas answer")
        assert under_load.failures() == []
        yield under_load
    local.orchctl("delete", "service", "web")


def ended(local: LocalCluster, *, but: int) -> bool:
    """Whether nothing but so many tasks is left of the service."""
    return sum(not states.is_terminal(task.status.state) for task in local.tasks("web")) == but


def test_a_rolling_update(clients: Clients) -> None:
    """One replica after another, with another port behind the published one. What is ready is asked soon."""
    local = clients.local
    before = names_of(tasks.running(local.plan, "web"))
    after = apply(local, 8082)
    assert not set(before) & set(after)
    assert clients.failures() == []
    standing = clients.outside.standing
    waits_s = [standing["first"][name] - standing["ready_at"][name] for name in after]
    print(f"from the good answer to the probe to the first request, {len(after)} tasks: {in_ms(waits_s)}")
    assert statistics.median(waits_s) < SOON_S + BUSY_S


def test_fewer_and_more_again(clients: Clients) -> None:
    """Six leave at once, and six come. No node begins a connection with those that leave for long."""
    local = clients.local
    names = names_of(tasks.running(local.plan, "web"))
    told_at = time.time()
    local.scale("web", 4)
    until(lambda: ended(local, but=4), what="the others have ended", timeout_s=20)
    assert clients.failures() == []
    left = set(names) - set(names_of(tasks.running(local.plan, "web")))
    last_s = [max(0.0, clients.outside.standing["last_new"][name] - told_at) for name in left]
    print(f"from the wish to the last new connection of {len(left)} tasks: {in_ms(last_s)}")
    assert max(last_s) < SOON_S + BUSY_S
    local.orchctl("scale", f"web={REPLICAS}")
    local.await_whole("web", REPLICAS, timeout_s=20)
    assert clients.failures() == []


def test_a_node_is_drained(clients: Clients) -> None:
    """Its tasks go to the others; later it takes tasks again."""
    local = clients.local
    (home,) = {task.node_id for task in tasks.running(local.plan, "clients")}
    name, drained = next((name, node.id) for name, node in local.nodes().items() if node.id != home)
    local.orchctl("node", "drain", name)
    local.await_whole("web", REPLICAS, but_not_on=drained, timeout_s=30)
    assert clients.failures() == []
    local.orchctl("node", "activate", name)
    local.orchctl("scale", "web=4")
    local.orchctl("scale", f"web={REPLICAS}")
    replicas = local.await_whole("web", REPLICAS, timeout_s=20)
    assert drained in {task.node_id for task in replicas}
    assert clients.failures() == []


def lose_the_leader(local: LocalCluster) -> None:
    """When it may have told some nodes, and not yet others."""
    local.scale("web", 4)
    local.process("cp1").signal(signal.SIGKILL)


def lose_an_agent(local: LocalCluster) -> None:
    """Its kernel goes on sending where it was told to, and does not hear of the change before the next agent does."""
    # At once: the next one is there within a second, and a leader that is new calls no node lost.
    os.kill(local.agent_pid("n1"), signal.SIGKILL)
    local.scale("web", 4)


@pytest.mark.parametrize("lose", [lose_the_leader, lose_an_agent])
def test_a_failure_while_tasks_leave(clients: Clients, lose: Callable[[LocalCluster], None]) -> None:
    """Six were told to go, and who was to see to it is gone: the next one goes on with it."""
    local = clients.local
    lose(local)
    until(lambda: settled(local, 4), what="the others have ended", timeout_s=40)
    assert clients.failures() == []
    local.orchctl("scale", f"web={REPLICAS}")
    local.await_whole("web", REPLICAS, timeout_s=20)
    assert clients.failures() == []


def settled(local: LocalCluster, replicas: int) -> bool:
    """As `ended`, of a control plane that may be away."""
    try:
        return ended(local, but=replicas)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not an answer yet
        return not str(error)


def test_enough_was_asked(clients: Clients) -> None:
    """For all this to mean something."""
    answered = clients.answered()
    print(f"answered: {answered}")
    assert all(count > 500 for count in answered.values()), answered


def in_ms(seconds: Sequence[float]) -> str:
    """0.05, 0.06, 0.21 → median 60 ms, worst 210 ms"""
    return f"median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms"
