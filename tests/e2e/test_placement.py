"""Placement on a real cluster: labels, taints, generic resources and priorities decide where containers run."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.core import locality
from deploy import hello
from images import archive
from images.image import Config
from images.store import ImageStore
from tests.support import cluster
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.slow]


@pytest.fixture(scope="module")
def local() -> Iterator[cluster.LocalCluster]:
    """Three nodes in two zones; n1 has three cards."""
    with cluster.running(resources={"n1": ["gpu=a,b,c"]}) as up:
        for node, zone in (("n1", "east"), ("n2", "east"), ("n3", "west")):
            up.orchctl("node", "label", node, f"zone={zone}")
        yield up


def manifest(name: str, *, replicas: int, placement: str = "{}", generic: str = "", more: str = "") -> str:
    reserved = f", resources: {{reservations: {{generic: {generic}}}}}" if generic else ""
    return (
        f"kind: Service\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n{more}"
        f"  template:\n    stopGracePeriod: 1s\n    placement: {placement}\n"
        f"    container: {{image: hello{reserved}}}\n"
    )


def apply(local: cluster.LocalCluster, name: str, replicas: int, **asked: str) -> list[str]:
    """The names of the nodes of its tasks, once all run."""
    local.orchctl("apply", "-f", "-", text=manifest(name, replicas=replicas, **asked))
    names = {node.id: node.name for node in local.nodes().values()}
    return sorted(names[task.node_id] for task in local.await_whole(name, replicas))


def test_constraints_and_spread_decide_where_containers_run(local: cluster.LocalCluster) -> None:
    """Four in two zones: two each, although one zone has two nodes and the other one."""
    assert apply(local, "west", 2, placement='{constraints: ["node.labels.zone == west"]}') == ["n3", "n3"]
    spread = apply(local, "zones", 4, placement="{spread: [{by: node.labels.zone, maxSkew: 1}]}")
    assert spread.count("n3") == 2
    told = local.orchctl("why", local.tasks("west")[0].meta.name)
    assert "it is on n3, which is the best now: 1 of 3 nodes take it now" in told
    assert "constraints: constraint node.labels.zone == west is not fulfilled: it has east" in told
    local.orchctl("delete", "service", "west", "zones")


def test_a_dry_run_shows_where_every_task_would_go_and_writes_nothing(local: cluster.LocalCluster) -> None:
    wanted = manifest("thought", replicas=3, placement="{apart: [{service: thought}]}")
    shown = local.orchctl("apply", "--dry-run", "-f", "-", text=wanted)
    rows = [line.split() for line in shown.splitlines() if line.startswith("default/thought")]
    assert sorted(row[2] for row in rows) == ["n1", "n2", "n3"]
    assert "thought" not in local.orchctl("get", "services")


def test_what_a_container_was_granted_is_in_its_environment(local: cluster.LocalCluster) -> None:
    """Two tasks of one card each get different ones; a third of two cards waits and says why."""
    assert apply(local, "cards", 2, generic="{gpu: 1}") == ["n1", "n1"]
    given = {
        local.orchctl("exec", task.meta.name, "--", "/bin/sh", "-c", "echo $ORCH_RESOURCE_GPU").strip()
        for task in local.tasks("cards")
    }
    assert given == {"a", "b"}
    local.orchctl("apply", "--detach", "-f", "-", text=manifest("greedy", replicas=1, generic="{gpu: 2}"))
    message = "not enough gpu: needs 2, 1 is free"
    until(lambda: message in local.orchctl("get", "tasks"), what="it says what is missing", timeout_s=10)
    assert message in local.orchctl("why", "greedy", "--node", "n1")
    local.orchctl("delete", "service", "cards", "greedy")


def test_a_taint_keeps_tasks_away_and_drives_out_those_that_are_there(local: cluster.LocalCluster) -> None:
    assert apply(local, "driven", 3) == ["n1", "n2", "n3"]
    local.orchctl("node", "taint", "n2", "broken=disk:no-execute")
    try:
        ids = {node.name: node.id for node in local.nodes().values()}

        def has_left() -> bool:
            return ids["n2"] not in {task.node_id for task in local.await_whole("driven", 3)}

        until(has_left, what="no task is on n2", timeout_s=20)
        assert "taint broken=disk:no-execute is not tolerated" in local.orchctl("why", "driven", "--node", "n2")
        assert "n2" in apply(local, "standing", 3, placement="{tolerations: [{key: broken}]}")
    finally:
        local.orchctl("node", "taint", "n2", "broken-")
    local.orchctl("delete", "service", "driven", "standing")


def test_a_task_of_higher_priority_has_another_make_way(local: cluster.LocalCluster) -> None:
    """The cards are all taken; the urgent one gets one, and nobody stops for one that is not more urgent."""
    assert apply(local, "patient", 3, generic="{gpu: 1}") == ["n1"] * 3
    local.orchctl("apply", "--detach", "-f", "-", text=manifest("equal", replicas=1, generic="{gpu: 1}"))
    assert apply(local, "urgent", 1, generic="{gpu: 1}", more="  priority: 5\n") == ["n1"]
    waiting = [task for task in local.tasks("patient") if not task.node_id]
    assert len(waiting) == 1, "one has made way, and waits"
    assert all(not task.node_id for task in local.tasks("equal"))
    local.orchctl("delete", "service", "patient", "urgent", "equal")


def large(folder: Path, name: str) -> None:
    """An image in a person's store, of a size that counts where it has to be fetched."""
    tar = folder / f"{name}.tar"
    hello.write(tar)
    with tarfile.open(tar, "a") as archived:
        noise = tarfile.TarInfo("noise")
        noise.size = locality.SMALL_BYTES
        archived.addfile(noise, io.BytesIO(os.urandom(noise.size)))
    config = Config(cmd=(hello.START,), env=("PATH=/bin",))
    archive.import_archive(ImageStore(folder / "mine"), tar, name=name, config=config)


def test_a_node_that_has_the_image_is_taken_before_one_that_is_about_as_busy(
    local: cluster.LocalCluster, tmp_path: Path
) -> None:
    """n3 has it from another service, and as many tasks as the others, of which the first by name would be taken.
    Replicas do not crowd there.
    """
    large(tmp_path, "large")
    local.orchctl("image", "push", "large", "--store", str(tmp_path / "mine"))
    first = manifest("first", replicas=1, placement='{constraints: ["node.name == n3"]}').replace("hello", "large")
    local.orchctl("apply", "-f", "-", text=first)
    local.await_whole("first", 1)
    assert apply(local, "busy", 2, placement='{spread: [{by: node.name}], constraints: ["node.name != n3"]}') == [
        "n1",
        "n2",
    ]

    second = manifest("second", replicas=1).replace("hello", "large")
    until(
        lambda: "n3     new, nothing to fetch" in local.orchctl("apply", "--dry-run", "-f", "-", text=second),
        what="the leader knows what n3 has",
        timeout_s=10,
    )
    local.orchctl("apply", "-f", "-", text=second)
    (task,) = local.await_whole("second", 1)
    assert task.node_id == local.nodes()["n3"].id
    told = local.orchctl("why", task.meta.name)
    assert "0 of its tasks there, 1 task there, nothing to fetch" in told, told
    assert "Mi to fetch" in told, told

    local.orchctl("apply", "-f", "-", text=second.replace("replicas: 1", "replicas: 3"))
    assert {one.node_id for one in local.await_whole("second", 3)} == {node.id for node in local.nodes().values()}
    local.orchctl("delete", "service", "first", "busy", "second")
