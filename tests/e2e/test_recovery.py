"""docs/recovery.md does what it says: two tiers, another node for what keeps failing, and everything by hand."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import cluster
from tests.support.cluster import LocalCluster
from tests.support.pages import Reader
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.slow]

PAGE = (cluster.ROOT / "docs/recovery.md").read_text()
COMMANDS = re.findall(r"^    orchctl (.+)$", PAGE, re.MULTILINE)
(SICK,) = re.findall(r"^```yaml\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_its_commands_succeed_one_after_the_other(local: LocalCluster) -> None:
    """A stopped service keeps its number of replicas, over an apply too; restart and start bring new tasks."""
    assert len(COMMANDS) == 6
    seen: dict[str, frozenset[str]] = {}
    for command in COMMANDS:
        local.orchctl(*command.split())
        seen[command.split()[0]] = frozenset(one.meta.id for one in _running(local, "hello"))
        if command == "stop hello":
            assert not seen["stop"]
            said = local.start_orchctl("apply", "-f", "manifests/examples/hello.yaml").communicate(timeout=30)[0]
            assert "orchctl start hello" in said, said
            assert local.service("hello").spec.replicas == len(seen["apply"])
            assert "is stopped: it has no tasks to restart" in local.refusal("restart", "hello")
    assert len(seen["apply"]) == len(seen["restart"]) == len(seen["start"])
    assert not (seen["apply"] & seen["restart"] | seen["restart"] & seen["start"])


def test_what_keeps_failing_is_tried_in_place_and_then_on_another_node(local: LocalCluster, tmp_path: Path) -> None:
    """Three restarts on each; nowhere twice as long as there is a node where it has not failed. It is told as what it
    is, with exit code and output.
    """
    reader = Reader(local=local, folder=tmp_path, page="recovery.md")
    local.orchctl("apply", "--detach", "-f", "-", text=SICK)
    reader.sees("orchctl get tasks", within_s=60)
    reader.sees("orchctl describe service sick")
    reader.sees("orchctl events --for service/sick", within_s=20)
    assert not reader.left
    failed = until(lambda: _given_up(local), what="it was given up on two nodes", timeout_s=60)
    assert all(task.status.restarts == 3 for task in failed)
    until(lambda: len({one.node_id for one in local.tasks("sick")}) == 3, what="the third is tried", timeout_s=10)
    assert re.search(r"yes +[1-9] recent failures?", local.orchctl("why", "sick"))
    local.orchctl("delete", "service", "sick")


def _running(local: LocalCluster, service: str) -> list[pb.Task]:
    return [
        one
        for one in local.tasks(service)
        if one.status.state == states.RUNNING and one.desired_state == pb.DESIRED_STATE_RUNNING
    ]


def _given_up(local: LocalCluster) -> Sequence[pb.Task]:
    """The tasks that have FAILED, once they are of two nodes."""
    failed = [one for one in local.tasks("sick") if one.status.state == states.FAILED]
    return failed if len({one.node_id for one in failed}) >= 2 else ()
