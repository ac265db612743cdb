"""Nodes are emptied on a real cluster: gently, told all the while, and after a deadline all the same."""

import pytest

from tests.support import cluster
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.slow]


def apply(local: cluster.LocalCluster, name: str, replicas: int, more: str = "") -> None:
    manifest = (
        f"kind: Service\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n{more}"
        "  template:\n    stopGracePeriod: 1s\n    container: {image: hello}\n"
    )
    local.orchctl("apply", "-f", "-", text=manifest)
    local.await_whole(name, replicas)


def homes(local: cluster.LocalCluster, name: str) -> list[str]:
    """The nodes of a service's running tasks."""
    names = {node.id: node.name for node in local.nodes().values()}
    return sorted(names[task.node_id] for task in local.tasks(name) if task.status.ready)


def test_a_drain_waits_until_the_tasks_are_elsewhere(local: cluster.LocalCluster) -> None:
    """When it returns, the node is empty and the service whole."""
    apply(local, "web", 6)
    said = local.orchctl("node", "drain", "n1")
    assert said.splitlines()[-1] == "node/n1: it has no tasks any more"
    assert homes(local, "web") == ["n2"] * 3 + ["n3"] * 3
    assert "drain (empty)" in local.orchctl("node", "ls")
    local.orchctl("node", "uncordon", "n1")
    assert "drain" not in local.orchctl("node", "ls")
    local.orchctl("delete", "service", "web")


def test_what_cannot_be_spared_stays_until_the_deadline(local: cluster.LocalCluster) -> None:
    held = "  update: {order: stop-first}\n  disruption: {minAvailable: 3}\n"
    apply(local, "needed", 3, held)
    local.orchctl("node", "drain", "n2", "-d")
    until(lambda: "(1 left)" in local.orchctl("node", "ls"), what="the progress is told")
    told = local.orchctl("describe", "node", "n2")
    assert "needed may not miss another one now, see its `disruption`" in told
    assert homes(local, "needed") == ["n1", "n2", "n3"]
    local.orchctl("node", "drain", "n2", "--deadline", "1s")
    local.await_whole("needed", 3)
    assert "n2" not in homes(local, "needed")
    local.orchctl("node", "activate", "n2")
    local.orchctl("delete", "service", "needed")
