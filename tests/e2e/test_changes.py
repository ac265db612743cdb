"""docs/changes.md does what it says on a real cluster, and what becomes of tasks and nodes is told."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess

import pytest

from deploy.local import trust
from protos.orch.v1 import control_pb2
from tests.support import cluster
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

PAGE = (cluster.ROOT / "docs/changes.md").read_text()
COMMANDS = re.findall(r"^    (?:EDITOR='(.+)' )?(orchctl .+)$", PAGE, re.MULTILINE)
DIFFERENCES = 1

BIG = """\
kind: Service
meta: {name: big}
spec: {template: {container: {image: hello, resources: {reservations: {memory: 4Ti}}}}}
"""
LOST = "kind: Service\nmeta: {name: lost}\nspec: {template: {container: {image: nowhere, imagePullPolicy: never}}}\n"


def reasons(local: LocalCluster, about: str) -> list[str]:
    """What has happened to an object, the newest last."""
    return [event["status"]["reason"] for event in json.loads(local.orchctl("events", "--for", about, "-o", "json"))]


def test_its_commands_succeed_one_after_the_other(local: LocalCluster) -> None:
    """A `diff` of something new ends with the exit code that says so; the last command takes everything away."""
    assert len(COMMANDS) >= 12
    for editor, line in COMMANDS:
        done = subprocess.run(
            [cluster.ORCHCTL, *shlex.split(line)[1:]],
            env={**cluster.environment(local.plan.config), "EDITOR": editor, "VISUAL": ""},
            cwd=cluster.ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        expected = DIFFERENCES if line.startswith("orchctl diff") else 0
        assert done.returncode == expected, f"{line}\n{done.stdout}{done.stderr}"
    assert not local.tasks("desk")
    assert not local.tasks("archive")


def test_the_life_of_a_service_is_told(local: LocalCluster) -> None:
    """Placed, started, restarted after a crash, settled, scaled, stopped, gone: by its tasks and by people."""
    tasks = local.apply_hello("life", replicas=2)
    os.kill(local.container_pid(tasks[0].meta.name), signal.SIGKILL)
    until(lambda: "Restarted" in reasons(local, f"task/{tasks[0].meta.name}"), what="the crash is told")
    local.orchctl("scale", "life=1")
    told = until(
        lambda: found if "Stopped" in (found := reasons(local, "service/life")) else None, what="the stop is told"
    )
    assert told[0] == "Created"
    assert told.index("Placed") < told.index("Started") < told.index("Settled")
    assert "Scaled" in told
    page = local.orchctl("describe", "service", "life")
    assert re.search(r"warning +Restarted .*its container ended with exit code 137; it is started again in place", page)
    with trust.reach(local.plan) as control:
        asked = control_pb2.ListRequest(kind="event")
        told_of = [one.event.status for one in control.List(asked, timeout=10).objects]
    (who,) = {one.actor for one in told_of if one.reason == "Scaled" and one.about.name == "life"}
    assert who == trust.person(), "whom the certificate names, whatever the client says"
    assert re.search(rf"normal +Scaled .*{re.escape(who)} +2 → 1 replicas", page)
    local.orchctl("delete", "service", "life")
    until(lambda: "Gone" in reasons(local, "service/life"), what="its end is told")


def test_what_does_not_work_is_a_warning(local: LocalCluster) -> None:
    """No room, no image: with the reason in a sentence."""
    local.orchctl("apply", "-f", "-", "--detach", text=f"{BIG}---\n{LOST}")
    until(lambda: "NotPlaced" in reasons(local, "service/big"), what="that no node takes it is told")
    until(lambda: "ImageMissing" in reasons(local, "service/lost"), what="that there is no image is told")
    warnings = local.orchctl("events", "--type", "warning", "--for", "service/big")
    assert "no node takes it: 3 nodes: not enough memory: needs 4Ti" in warnings
    local.orchctl("wait", "service", "big", "--for=ready", "--timeout", "1s", code=1)
    local.orchctl("delete", "service", "big")
    local.orchctl("delete", "service", "lost")


def test_a_node_that_goes_and_returns_is_told(local: LocalCluster) -> None:
    """By the leader; and by whom it was drained."""
    os.kill(local.agent_pid("n3"), signal.SIGSTOP)
    try:
        until(lambda: "Disconnected" in reasons(local, "node/n3"), what="the loss is told", timeout_s=20)
    finally:
        os.kill(local.agent_pid("n3"), signal.SIGCONT)
    until(lambda: "Returned" in reasons(local, "node/n3"), what="the return is told", timeout_s=20)
    local.orchctl("node", "drain", "n3")
    local.orchctl("node", "activate", "n3")
    until(lambda: reasons(local, "node/n3")[-1:] == ["Activated"], what="the end of it is told", timeout_s=20)
    assert [one for one in reasons(local, "node/n3")[-3:] if one != "Emptied"][-2:] == ["Drained", "Activated"]
    local.orchctl("wait", "node", "n3", "--for=ready")


def test_events_are_followed(local: LocalCluster) -> None:
    """Those that are there, then each as it comes."""
    following = local.start_orchctl("events", "-w", "--for", "service/followed")
    assert following.stdout is not None
    try:
        assert following.stdout.readline().startswith("LAST SEEN")
        local.orchctl("apply", "-f", "-", text=LOST.replace("lost", "followed").replace("nowhere", "hello"))
        seen = ""
        while "Settled" not in seen:
            seen += following.stdout.readline()
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=10)
    assert seen.index("Created") < seen.index("Placed") < seen.index("Settled")
    local.orchctl("delete", "service", "followed")


def test_a_cluster_at_rest_writes_nothing(local: LocalCluster) -> None:
    """Neither events nor anything else, while services run; and an apply without a change is no change."""
    local.orchctl("apply", "-f", "manifests/examples/stack.yaml")
    local.orchctl("wait", "service", "desk", "archive")
    for service in ("desk", "archive"):  # which are watched for some seconds after all work
        until(lambda service=service: "completed" in local.orchctl("rollout", "history", service), what="it counts")

    def revision() -> int:
        with trust.reach(local.plan) as stub:
            return stub.Version(control_pb2.VersionRequest(), timeout=5).revision

    seen: list[int] = []

    def rests() -> bool:
        seen.append(revision())
        return len(seen) > 40 and len(set(seen[-40:])) == 1

    until(rests, what="the cluster comes to rest", timeout_s=30)
    local.orchctl("apply", "-f", "manifests/examples/stack.yaml")
    assert revision() == seen[-1]
    local.orchctl("delete", "-f", "manifests/examples/stack.yaml")


def test_events_outlive_the_control_plane(local: LocalCluster) -> None:
    """It is killed and started again: what was told is there, and the election is told once more."""
    before = json.loads(local.orchctl("events", "--for", "cluster/cluster", "-o", "json"))
    assert [event["status"]["reason"] for event in before] == ["LeaderElected"]
    killed = local.process("cp1")
    killed.signal(signal.SIGKILL)
    assert killed.wait(5)

    def counted() -> bool:
        with contextlib.suppress(AssertionError):  # while nobody answers
            told = json.loads(local.orchctl("events", "--for", "cluster/cluster", "-o", "json"))
            return told[-1]["status"]["count"] > before[-1]["status"]["count"]
        return False

    until(counted, what="the next leader tells of its election", timeout_s=30)
