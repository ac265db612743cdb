"""When most nodes vanish together: nothing is replaced, it is told everywhere, and a person's word frees one node."""

import os
import signal
from pathlib import Path

import pytest

from protos import states
from tests.support.cluster import LocalCluster
from tests.support.pages import Reader
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.slow]

PATIENCE_S = 40.0
REPLICAS = 11


def names_on(local: LocalCluster, node: str) -> set[str]:
    """The tasks there that have not ended."""
    node_id = local.nodes()[node].id
    return {
        task.meta.name
        for task in local.tasks("spread")
        if not states.is_terminal(task.status.state) and task.node_id == node_id
    }


def test_what_most_nodes_have_is_held_until_somebody_says_that_one_is_lost(local: LocalCluster, tmp_path: Path) -> None:
    """And all of it is taken back when the machines return after all. It is seen as docs/nodes.md shows it."""
    reader = Reader(local=local, folder=tmp_path, page="nodes.md")
    local.apply_hello("spread", replicas=REPLICAS)
    before = {node: names_on(local, node) for node in ("n1", "n2", "n3")}
    assert all(before.values()), "some tasks on each node"
    frozen = [local.agent_pid(node) for node in ("n2", "n3")]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(
            lambda: local.orchctl("node", "ls").count("DOWN (tasks held)") == len(frozen),
            what="both say that their tasks are held",
            timeout_s=PATIENCE_S,
        )
        reader.left = [one for one in reader.left if "drain" not in one.command and "drain" not in one.seen]
        reader.sees("orchctl node ls")
        reader.sees("orchctl events --type warning", within_s=PATIENCE_S)
        assert "`orchctl node lost n2` says that it does not" in local.orchctl("describe", "node", "n2")
        assert {node: names_on(local, node) for node in before} == before, "nothing was replaced"
        local.orchctl("node", "lost", "n2")
        until(lambda: not names_on(local, "n2"), what="the tasks of n2 are given up", timeout_s=PATIENCE_S)
        until(lambda: len(names_on(local, "n1")) > len(before["n1"]), what="they are replaced", timeout_s=PATIENCE_S)
        assert names_on(local, "n3") == before["n3"], "nobody said anything of n3"
        reader.sees("orchctl node lost n2 n3")
        assert "DOWN (given up)" in local.orchctl("node", "ls")
        assert "is not lost: its agent holds a session" in local.refusal("node", "lost", "n1")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    local.orchctl("wait", "node", "n2", "n3", "--for=ready", "--timeout", "1m")
    until(lambda: "DOWN" not in local.orchctl("node", "ls"), what="all are back", timeout_s=PATIENCE_S)
    local.await_whole("spread", REPLICAS)
