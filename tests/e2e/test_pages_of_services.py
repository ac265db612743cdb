"""The pages on what runs where, followed on a real cluster: what is typed there shows what is seen there.

What docs/nodes.md shows of nodes that are lost, or whose agent is restarted, is tried by `test_mass_loss` and
`test_orderly`, which have such nodes.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.orch.v1 import objects_pb2 as pb
from tests.support import pages
from tests.support.cluster import LocalCluster
from tests.support.pages import Reader
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.slow, pytest.mark.usefixtures("emptied")]

PAGES = ("rollouts.md", "placement.md", "nodes.md", "global-services.md", "rebalancing.md")
GLOBAL = "manifests/examples/global.yaml"
UNFULFILLABLE = """\
kind: Service
meta: {name: bad}
spec:
  template:
    container: {image: hello}
    placement:
      constraints:
        - node.labels.zone == east
        - node.labels.zone == west
        - zone == east
"""
NEVER_READY = "probes: {readiness: {tcp: {port: 9}, interval: 1s}}"
REFUSED = {
    "": ["rollout resume web", "rollout promote web", "rollout abort web", "rollout undo web", "start web"],
    "stop web": ["stop web", "restart web"],
    "start web": [],
    "rollout pause web": ["rollout pause web", "restart web"],
}
"""What is said in vain after a command, of a service that has had one revision."""
ILL_S = 8
GENTLE = "update: {monitor: 1s}\n  rebalance: {maxMovesPerMinute: 1}"
NEEDED = "update: {order: stop-first}\n  disruption: {minAvailable: 1}"
LOST = ["orchctl node ls", "orchctl events --type warning", "orchctl node lost n2 n3", "orchctl get nodes"]
LEAVES = [(("drain", "n2"), ("activate", "n2")), (("taint", "n2", "a:no-execute"), ("taint", "n2", "a-"))]
"""What is done to a node whose task leaves then, and how it is taken back."""
PROGRESS = r"service/\w+: \d of \d ready"


def manifest(name: str, *, replicas: int = 3, spec: str = "", template: str = "", container: str = "") -> str:
    """A service of the image `hello`; more for each part of it, in the flow style."""
    return (
        f"kind: Service\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  {spec}\n"
        f"  template:\n    stopGracePeriod: 1s\n    {template}\n    container:\n      image: hello\n      {container}\n"
    )


@contextlib.contextmanager
def node(local: LocalCluster, *done: str, undone: tuple[str, ...]) -> Iterator[None]:
    """What is done to a node, and taken back."""
    local.orchctl("node", *done)
    try:
        yield
    finally:
        local.orchctl("node", *undone)


@pytest.mark.parametrize("page", PAGES)
def test_its_manifests_are_taken(page: str, local: LocalCluster) -> None:
    """Each alone; there may be none."""
    for one in pages.manifests(page):
        assert "created (dry run)" in local.orchctl("apply", "--dry-run", "-f", "-", text=one)


def test_a_rollout_that_fails_is_told_as_on_the_page(local: LocalCluster, tmp_path: Path) -> None:
    """docs/rollouts.md, down to the history; the first revision that works nowhere is another service's."""
    reader = Reader(local=local, folder=tmp_path, page="rollouts.md")
    update = "update: {monitor: 1s, onFailure: rollback}"
    local.orchctl("apply", "-f", "-", text=manifest("web", spec=update))
    local.orchctl("apply", "-f", "-", text=manifest("web", spec=update, container="env: {GREETING: hi}"))
    reader.write("web.yaml", manifest("web", spec=update, container="command: [sh, -c, 'echo no database; exit 3']"))
    reader.sees("orchctl apply -f web.yaml", code=1, passing=rf"{PROGRESS}(?!.*rolled back)")
    reader.sees("orchctl rollout status web")
    reader.sees("orchctl events --for service/web --type warning", within_s=20)
    local.orchctl("rollout", "undo", "web")
    local.orchctl("rollout", "undo", "web", "--to-revision", "1")
    reader.sees("orchctl rollout history web")
    local.orchctl("delete", "service", "web")
    slow = manifest("web", spec="update: {progressDeadline: 2s}", container=NEVER_READY)
    local.orchctl("apply", "--detach", "-f", "-", text=slow)
    reader.sees("orchctl rollout status web", within_s=20)
    assert not reader.left


def test_what_is_asked_in_vain_is_refused_as_on_the_page(local: LocalCluster) -> None:
    """docs/rollouts.md has when in a table; and an apply warns of what a person has said before."""
    page = pages.text("rollouts.md")
    asked = re.findall(r"^\| `orchctl (.+ web)` \| .+ \| (?!\|)\S.* \|$", page, re.MULTILINE)
    assert set(asked) == {command for commands in REFUSED.values() for command in commands}
    once = manifest("web", replicas=1, spec="update: {monitor: 1s}")
    local.orchctl("apply", "-f", "-", text=once)
    for before, commands in REFUSED.items():
        if before:
            local.orchctl(*before.split())
        for command in commands:
            assert "Service default/web" in local.refusal(*command.split()), command
    (warning,) = re.findall("^    (warning: service/web: its rollouts are paused.+)$", page, re.MULTILINE)
    assert warning in local.run("apply", "--detach", "-f", "-", text=once).stderr


def test_what_fails_and_stops_nothing_is_told_as_on_the_page(local: LocalCluster) -> None:
    """docs/rollouts.md: with `onFailure: continue` the others are replaced, and what failed is tried further."""
    told = [one for one in pages.text("rollouts.md").splitlines() if re.match("    (the update to )?revision 2 ", one)]
    (through, out) = (one.strip() for one in told)
    going_on = "update: {monitor: 1s, parallelism: 2, onFailure: continue}"
    local.orchctl("apply", "-f", "-", text=manifest("web", replicas=4, spec=going_on))
    ill = (
        f"command: [sh, -c, '[ $ORCH_SLOT != 1 ] || [ $(date +%s) -gt {int(time.time()) + ILL_S} ] || exit 3; /serve']"
    )
    local.orchctl("apply", "--detach", "-f", "-", text=manifest("web", replicas=4, spec=going_on, container=ill))

    def says(sentence: str) -> bool:
        first = local.orchctl("rollout", "status", "web").splitlines()[0]
        return pages.is_seen(sentence, first.partition(":")[2].strip())

    until(lambda: says(through), what=through, timeout_s=30)
    until(lambda: says(out), what=out, timeout_s=60)


def test_nodes_are_chosen_as_on_the_page(local: LocalCluster, tmp_path: Path) -> None:
    """docs/placement.md: what is refused, what is warned of, where tasks go and why, and who makes way."""
    reader = Reader(local=local, folder=tmp_path, page="placement.md")
    for name, *labels in (("n1", "zone=east"), ("n2", "zone=east", "disk=ssd"), ("n3", "zone=west")):
        local.orchctl("node", "label", name, *labels)
    reader.write("bad.yaml", UNFULFILLABLE)
    reader.sees("orchctl apply -f bad.yaml", code=2)
    north = 'placement: {constraints: ["node.labels.zone == north"]}'
    reader.write("nowhere.yaml", manifest("nowhere", replicas=1, template=north))
    reader.sees("orchctl apply --detach -f nowhere.yaml")
    apart = "placement: {apart: [{service: apart}]}"
    reader.write("apart.yaml", manifest("apart", replicas=5, template=apart))
    reader.sees("orchctl apply --detach -f apart.yaml")
    local.orchctl("delete", "service", "nowhere", "apart")

    (web,) = pages.manifests(reader.page)
    reader.write("web.yaml", web)
    reader.sees("orchctl apply --dry-run -f web.yaml")
    local.orchctl("apply", "-f", "-", text=web)
    reader.sees("orchctl why web-1-p23e4xep")
    reader.sees("orchctl why web --node n3")
    local.orchctl("delete", "service", "web")
    reader.sees("orchctl node taint n3 broken=disk:no-schedule")
    reader.sees("orchctl node taint n3 broken-")

    with node(local, "taint", "n3", "broken=disk:no-schedule", undone=("taint", "n3", "broken-")):
        card = "resources: {reservations: {generic: {gpu: 1}}}"
        for replicas in (1, 3):  # the youngest makes way, and is to be train-2
            train = manifest("train", replicas=replicas, container=card)
            local.orchctl("apply", "--detach", "-f", "-", text=train)
        reader.sees("orchctl get tasks", within_s=20)
        urgent = manifest("urgent", replicas=1, spec="priority: 5", container=card)
        local.orchctl("apply", "--timeout", "20s", "-f", "-", text=urgent)
        reader.sees("orchctl get tasks")
        until(lambda: "Preempted" in local.orchctl("events", "--for", "service/train"), what="it is told", timeout_s=20)
    for name in ("n1", "n2", "n3"):
        local.orchctl("node", "label", name, "zone-", "disk-")
    assert not reader.left


def test_a_node_is_emptied_as_on_the_page(local: LocalCluster, tmp_path: Path) -> None:
    """docs/nodes.md, with a service that cannot spare its only task."""
    reader = Reader(local=local, folder=tmp_path, page="nodes.md")
    local.orchctl("apply", "-f", "-", text=manifest("needed", replicas=1, spec=NEEDED))
    local.orchctl("apply", "-f", "-", text=manifest("web", replicas=8))
    reader.sees("orchctl node drain n1 --timeout 4s", code=1, passing="[23] tasks left")
    reader.sees("orchctl node ls")
    reader.sees("orchctl node drain n1 --deadline 2s", passing="1 stopping")
    local.orchctl("node", "uncordon", "n1")
    assert [one.command for one in reader.left] == LOST


def test_a_global_service_has_the_nodes_that_the_page_says(local: LocalCluster, tmp_path: Path) -> None:
    """docs/global-services.md: each way in which a node stops taking its task, and what it does to the one there."""
    reader = Reader(local=local, folder=tmp_path, page="global-services.md")
    watcher = pages.manifests(reader.page)[0].replace("  update:\n", "  update:\n    monitor: 1s\n")
    local.orchctl("apply", "-f", "-", text=watcher)
    reader.sees("orchctl get tasks")
    assert "is global" in local.refusal("scale", "watcher=4")

    with node(local, "label", "n2", "logs=no", undone=("label", "n2", "logs-")):
        constrained = "  template:\n    placement: {constraints: [node.labels.logs != no]}\n"
        local.orchctl("apply", "-f", "-", text=watcher.replace("  template:\n", constrained))
        reader.sees("orchctl why watcher")
    assert not reader.left

    n1, n2, n3 = (one.id for one in local.nodes().values())
    comes_to_be_on(local, n1, n2, n3)
    for done, undone in LEAVES:
        with node(local, *done, undone=undone):
            comes_to_be_on(local, n1, n3)
        comes_to_be_on(local, n1, n2, n3)
    before = watchers(local)
    with (
        node(local, "cordon", "n1", undone=("uncordon", "n1")),
        node(local, "taint", "n2", "a:no-schedule", undone=("taint", "n2", "a-")),
    ):
        local.orchctl("restart", "watcher")
        assert {home for home, name in before.items() if watchers(local)[home] == name} == {n1, n2}
    until(lambda: not {*before.values()} & {*watchers(local).values()}, what="they are renewed, too", timeout_s=20)
    comes_to_be_on(local, n1, n2, n3)


def watchers(local: LocalCluster) -> dict[str, str]:
    """The tasks of the global service that are there to stay, by their nodes."""
    live = (one for one in local.tasks("watcher") if one.desired_state == pb.DESIRED_STATE_RUNNING)
    return {one.node_id: one.meta.name for one in live if one.status.ready}


def comes_to_be_on(local: LocalCluster, *nodes: str) -> None:
    until(lambda: set(watchers(local)) == {*nodes}, what=f"it is on {nodes}", timeout_s=20)


def test_tasks_move_as_on_the_page(local: LocalCluster, tmp_path: Path) -> None:
    """docs/rebalancing.md: one by itself, the other by hand, and those of a service that says so not at all."""
    reader = Reader(local=local, folder=tmp_path, page="rebalancing.md")
    with node(local, "cordon", "n3", undone=("uncordon", "n3")):
        local.orchctl("apply", "-f", "-", text=manifest("even", replicas=6, spec=GENTLE))
    reader.sees("orchctl events --for service/even", within_s=20)
    reader.sees("orchctl rebalance --dry-run")
    local.orchctl("rebalance")
    until(lambda: _spread(local) == [2, 2, 2], what="all are spread", timeout_s=20)
    local.orchctl("delete", "service", "even")
    with node(local, "cordon", "n3", undone=("uncordon", "n3")):
        local.orchctl("apply", "-f", "-", text=manifest("settled", replicas=4, spec="rebalance: off"))
    reader.sees("orchctl rebalance --dry-run")
    assert not reader.left


def _spread(local: LocalCluster) -> list[int]:
    """How many of its tasks each node has."""
    homes = [one.node_id for one in local.tasks("even") if one.status.ready]
    return sorted(homes.count(node.id) for node in local.nodes().values())
