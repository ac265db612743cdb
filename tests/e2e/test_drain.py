"""Nodes are emptied on a real cluster: gently, told all the while, in the end all the same; and filled again."""

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


def test_a_node_that_takes_tasks_again_gets_its_share(local: cluster.LocalCluster) -> None:
    """Gently: at no time is less than everything ready. One that does not want it stays where it is."""
    local.orchctl("node", "drain", "n3")
    apply(local, "even", 6)
    apply(local, "still", 4, "  rebalance: off\n")
    local.orchctl("node", "uncordon", "n3")

    def is_even() -> bool:
        there = homes(local, "even")
        assert len(there) >= 6, there
        return there == ["n1", "n1", "n2", "n2", "n3", "n3"]

    until(is_even, what="it is spread over all three", timeout_s=60)
    assert homes(local, "still") == ["n1", "n1", "n2", "n2"]
    until(lambda: "moves from" in local.orchctl("events", "--for", "service/even"), what="it is told why")
    local.orchctl("delete", "service", "even", "still")


def test_services_are_spread_when_somebody_says_so(local: cluster.LocalCluster) -> None:
    """First it is shown what would move, or why nothing does. By itself one would go each minute."""
    local.orchctl("node", "drain", "n3")
    apply(local, "asked", 6, "  rebalance: off\n")
    local.orchctl("node", "uncordon", "n3")
    assert local.orchctl("rebalance", "--dry-run").splitlines() == [
        "service/asked in default could be spread better, and stays: it says `rebalance: off`",
        "nothing to move",
    ]
    apply(local, "asked", 6, "  rebalance: {maxMovesPerMinute: 1}\n")
    until(lambda: "n3" in local.orchctl("rebalance", "--dry-run"), what="its rollout is watched no more", timeout_s=30)
    local.orchctl("rebalance")
    until(lambda: homes(local, "asked").count("n3") == 2, what="it is spread over all three", timeout_s=30)
    local.orchctl("delete", "service", "asked")
