"""New revisions on a real cluster: how they go in, fail, are tried and taken back; global services; stop and start."""

import pytest

from deploy.local import cluster, tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support.cluster import LocalCluster, get, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

CRASHES = "command: [sh, -c, 'echo no database; exit 3']"

ASKED = "probes: {readiness: {tcp: {port: 8080}, interval: 200ms}}"
"""Without a probe, what runs counts as ready, if only for a moment."""


def manifest(name: str, *, update: str = "{monitor: 1s}", container: str = "", spec: str = "replicas: 3") -> str:
    """A service of the image `hello`; more for its container, and its spec."""
    return (
        f"kind: Service\nmeta: {{name: {name}}}\nspec:\n  {spec}\n  update: {update}\n"
        f"  template:\n    stopGracePeriod: 2s\n    container:\n      image: hello\n      {container}\n"
    )


def live(local: LocalCluster, name: str) -> list[pb.Task]:
    """Its tasks that run and are to run."""
    found = (task for task in tasks.ask(local.plan, name) if task.desired_state == pb.DESIRED_STATE_RUNNING)
    return [task for task in found if task.status.state == states.RUNNING]


def test_history_and_undo(local: LocalCluster) -> None:
    """Another environment is another revision; undo goes back to the first one, and the history tells all of it."""
    local.orchctl("apply", "-f", "-", text=manifest("past"))
    first = {task.revision_id for task in local.await_whole("past", 3)}
    local.orchctl("apply", "-f", "-", text=manifest("past", container="env: {COLOUR: green}"))
    assert not first & {task.revision_id for task in local.await_whole("past", 3)}
    history = local.orchctl("rollout", "history", "past").splitlines()
    assert history[1].startswith("1 ")
    assert "2*" in history[2]
    assert history[2].endswith("container.env.COLOUR")  # its value may be a password
    assert "completed" in history[2]
    assert "goes back to revision 1" in local.orchctl("rollout", "undo", "past")
    assert {task.revision_id for task in local.await_whole("past", 3)} == first
    assert "revision 1 is rolled out" in local.orchctl("rollout", "status", "past")
    local.orchctl("rollout", "undo", "past", "--to-revision", "2")
    assert not first & {task.revision_id for task in local.await_whole("past", 3)}
    local.orchctl("rollout", "undo", "past", "--to-revision", "1")
    local.orchctl("rollout", "undo", "past", "--to-revision", "9", code=1)
    assert {task.revision_id for task in local.await_whole("past", 3)} == first
    assert "unchanged" in local.orchctl("apply", "-f", "-", text=manifest("past"))
    local.orchctl("delete", "service", "past")


def test_what_fails_is_rolled_back_and_nothing_is_lost(local: LocalCluster) -> None:
    """A container that crashes never takes the place of one that works."""
    update = "{monitor: 2s, onFailure: rollback}"
    local.orchctl("apply", "-f", "-", text=manifest("safe", update=update, container=ASKED))
    before = names_of(local.await_whole("safe", 3))
    broken = manifest("safe", update=update, container=f"{ASKED}\n      {CRASHES}")
    local.orchctl("apply", "-f", "-", text=broken, code=1)
    assert names_of(local.await_whole("safe", 3)) == before
    assert all(get(task.status.address) for task in live(local, "safe"))
    assert "rolled back from revision 2 to revision 1" in local.orchctl("describe", "service", "safe")
    assert "rolled-back" in local.orchctl("rollout", "history", "safe")
    local.orchctl("rollout", "undo", "safe")
    assert names_of(local.await_whole("safe", 3)) == before
    local.orchctl("delete", "service", "safe")


def test_one_that_is_paused_goes_on_or_is_given_up(local: LocalCluster) -> None:
    """A canary stays alone while the rollout is paused; then everything has the new revision, or the old one again."""
    update = "{monitor: 1s, canary: 1}"
    local.orchctl("apply", "-f", "-", text=manifest("held", update=update))
    old = {task.revision_id for task in local.await_whole("held", 3)}
    local.orchctl("apply", "-f", "-", text=manifest("held", update=update, container="env: {COLOUR: green}"))
    local.orchctl("rollout", "pause", "held")
    local.orchctl("rollout", "promote", "held", code=1)
    assert len({task.revision_id for task in local.await_whole("held", 3)}) == 2
    assert "paused" in local.orchctl("describe", "service", "held")
    local.orchctl("rollout", "resume", "held")
    assert "waits to be promoted" in local.orchctl("rollout", "status", "held")
    local.orchctl("rollout", "promote", "held")
    (green,) = {task.revision_id for task in local.await_whole("held", 3)}
    assert {green} != old
    local.orchctl("apply", "-f", "-", text=manifest("held", update=update, container="env: {COLOUR: blue}"))
    assert len({task.revision_id for task in local.await_whole("held", 3)}) == 2
    local.orchctl("rollout", "abort", "held")
    assert {task.revision_id for task in local.await_whole("held", 3)} == {green}
    local.orchctl("delete", "service", "held")


def test_a_canary_waits_to_be_promoted(local: LocalCluster) -> None:
    update = "{monitor: 1s, canary: 1}"
    local.orchctl("apply", "-f", "-", text=manifest("bird", update=update))
    local.await_whole("bird", 3)
    local.orchctl("apply", "-f", "-", text=manifest("bird", update=update, container="env: {COLOUR: green}"))
    revisions = [task.revision_id for task in local.await_whole("bird", 3)]
    assert sorted(revisions.count(each) for each in set(revisions)) == [1, 2]
    assert "waits to be promoted" in local.orchctl("rollout", "status", "bird")
    local.orchctl("rollout", "promote", "bird")
    assert len({task.revision_id for task in local.await_whole("bird", 3)}) == 1
    local.orchctl("rollout", "promote", "bird", code=1)
    local.orchctl("delete", "service", "bird")


def test_restart_stop_and_start(local: LocalCluster) -> None:
    """Other tasks, no tasks, and as many as before again."""
    local.orchctl("apply", "-f", "-", text=manifest("pulse"))
    before = names_of(local.await_whole("pulse", 3))
    local.orchctl("restart", "pulse")
    after = local.await_whole("pulse", 3)
    assert not set(before) & set(names_of(after))
    local.orchctl("stop", "pulse")
    assert not live(local, "pulse")
    assert "stopped" in local.orchctl("get", "service", "pulse")
    local.orchctl("start", "pulse")
    assert {task.revision_id for task in local.await_whole("pulse", 3)} == {task.revision_id for task in after}
    local.orchctl("delete", "service", "pulse")


def test_a_global_service_has_one_task_on_each_node(local: LocalCluster) -> None:
    """Also after an update; it leaves a node that is drained, and comes back."""
    local.orchctl("apply", "-f", "-", text=manifest("every", spec="mode: global"))
    homes = [task.node_id for task in live(local, "every")]
    assert len(homes) == len(set(homes)) == 3
    local.orchctl("apply", "-f", "-", text=manifest("every", spec="mode: global", container="env: {COLOUR: green}"))
    assert sorted(task.node_id for task in live(local, "every")) == sorted(homes)
    local.orchctl("node", "drain", "n2")
    until(lambda: len(live(local, "every")) == 2, what="it left n2", timeout_s=15)
    local.orchctl("node", "activate", "n2")
    until(lambda: len(live(local, "every")) == 3, what="it came back to n2", timeout_s=15)
    local.orchctl("scale", "every=5", code=2)
    local.orchctl("delete", "service", "every")


def test_a_global_service_has_a_task_on_a_node_that_has_just_joined(local: LocalCluster) -> None:
    """Nobody asks for it. A node that was deleted has none, and is as new as any other when it registers again."""
    local.orchctl("apply", "-f", "-", text=manifest("met", spec="mode: global"))
    before = {task.node_id: task.meta.id for task in live(local, "met")}
    assert len(before) == 3
    gone = local.nodes()["n3"].id
    cluster.kill_node(local.folder, "n3")
    until(lambda: local.nodes()["n3"].state == "down", what="n3 is down", timeout_s=20)
    local.orchctl("delete", "node", "n3")
    until(lambda: {task.node_id for task in live(local, "met")} == before.keys() - {gone}, what="its task is gone")
    assert "n3" not in local.nodes()
    cluster.start_node(local.folder, "n3")
    until(lambda: len(live(local, "met")) == 3, what="n3 has a task", timeout_s=20)
    after = {task.node_id: task.meta.id for task in live(local, "met")}
    new = local.nodes()["n3"].id
    assert after.keys() == before.keys() - {gone} | {new}
    assert after[new] != before[gone], "what it ran before is not taken for its task"
    assert all(after[node] == task for node, task in before.items() if node != gone), "the others stay"
    local.orchctl("delete", "service", "met")


def test_a_crash_loop_is_called_so(local: LocalCluster) -> None:
    """With its last exit code, and what it printed last."""
    local.orchctl("apply", "-f", "-", "--detach", text=manifest("sick", spec="replicas: 1", container=CRASHES))

    def page() -> str:
        told = local.orchctl("describe", "service", "sick")
        return told if "CRASH LOOP" in told else ""

    told = until(page, what="it is seen as a crash loop", timeout_s=20)
    assert "exit code 3" in told
    assert "no database" in told
    local.orchctl("delete", "service", "sick")
