"""What a person does with a service, from the manifest to the answer."""

import collections
import os
import signal
from pathlib import Path

import pytest

from deploy.local import tasks
from tests.support.cluster import LocalCluster, answer_of, get, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root


def test_the_example_answers_on_every_node(local: LocalCluster) -> None:
    """Three replicas, one on each node; each answers with its task, node and slot."""
    local.orchctl("apply", "-f", "manifests/examples/hello.yaml")
    replicas = local.await_whole("hello", 3)
    names = tasks.node_names(local.plan)
    assert len({task.node_id for task in replicas}) == 3
    assert [get(task.status.address) for task in replicas] == [answer_of(task, names) for task in replicas]
    assert "unchanged" in local.orchctl("apply", "-f", "manifests/examples/hello.yaml")
    assert names_of(local.await_whole("hello", 3)) == names_of(replicas), "an apply without a change moved something"
    local.orchctl("delete", "service", "hello")
    assert not tasks.running(local.plan, "hello")


def test_tasks_reach_each_other_across_nodes(local: LocalCluster) -> None:
    """By their addresses, from inside a container."""
    first, second, *_ = local.apply_hello("reach")
    assert first.node_id != second.node_id
    url = f"http://{second.status.address}:8080/"
    answer = local.orchctl("exec", first.meta.name, "--", "wget", "-qO-", url)
    assert answer == answer_of(second, tasks.node_names(local.plan))
    local.orchctl("delete", "service", "reach")


def test_scaling_up_and_back(local: LocalCluster) -> None:
    """Thirty replicas, ten on each node, and three again."""
    local.apply_hello("many")
    local.orchctl("scale", "many=30")
    replicas = local.await_whole("many", 30, timeout_s=30)
    assert set(collections.Counter(task.node_id for task in replicas).values()) == {10}
    assert len({task.status.address for task in replicas}) == 30, "two tasks have the same address"
    local.orchctl("scale", "many=3")
    assert len(local.await_whole("many", 3, timeout_s=30)) == 3
    local.orchctl("delete", "service", "many")


def test_a_crashed_container_is_restarted_in_place(local: LocalCluster) -> None:
    """Same task, node and address; a new process, soon."""
    before = local.apply_hello("crash")[1]
    pid = local.container_pid(before.meta.name)
    os.kill(pid, signal.SIGKILL)
    after = until(
        lambda: found if (found := local.task(before.meta.name)).status.restarts == 1 else None,
        what="the restart is reported",
    )
    until(lambda: local.task(before.meta.name).status.ready, what="it is ready again")
    assert (after.node_id, after.status.address) == (before.node_id, before.status.address)
    assert local.container_pid(before.meta.name) != pid
    assert before.meta.name in get(after.status.address)
    local.orchctl("delete", "service", "crash")


def test_logs_of_all_replicas_in_one_stream(local: LocalCluster) -> None:
    """What is there first, then what comes, until Ctrl-C."""
    replicas = local.apply_hello("talk")
    lines = local.orchctl("logs", "talk").splitlines()
    assert all(any(f"{name} listens" in line for line in lines) for name in names_of(replicas))
    following = local.start_orchctl("logs", "-f", "--tail", "1", "talk")
    assert following.stdout is not None
    try:
        seen = [following.stdout.readline() for _ in replicas]
        for task in replicas:
            get(task.status.address)
        seen += [following.stdout.readline() for _ in replicas]
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=10)
    assert all(any(f"{name} answers" in line for line in seen) for name in names_of(replicas)), seen
    local.orchctl("delete", "service", "talk")


def test_exec_runs_inside_and_returns_the_exit_code(local: LocalCluster) -> None:
    """In the container's own namespaces."""
    name = local.apply_hello("inside", replicas=1)[0].meta.name
    assert local.orchctl("exec", name, "--", "hostname").strip() == name
    assert local.orchctl("exec", "-i", name, "--", "cat", text="through\n") == "through\n"
    local.orchctl("exec", name, "--", "sh", "-c", "exit 7", code=7)
    local.orchctl("exec", name, "--", "no-such-program", code=127)
    local.orchctl("delete", "service", "inside")


def test_every_container_has_users_of_its_own(local: LocalCluster) -> None:
    """Of a range that no other container of the cluster has, also on another node; and `describe` tells."""
    replicas = local.apply_hello("users", replicas=6)
    roots = [task.status.root_id for task in replicas]
    assert len(set(roots)) == 6
    for task in replicas:
        pid = local.container_pid(task.meta.name)
        assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(task.status.root_id), "65536"]
        assert Path(f"/proc/{pid}").stat().st_uid == task.status.root_id
    page = local.orchctl("describe", "task", replicas[0].meta.name)
    assert f"its own: its root is user {roots[0]} of the node" in page
    assert "its own" in local.orchctl("describe", "service", "users")
    assert "containers have their own" in local.orchctl("describe", "node", "n1")
    local.orchctl("delete", "service", "users")


def test_every_example_runs(local: LocalCluster) -> None:
    """The folder as a whole; then each is deleted by the very files."""
    local.orchctl("apply", "-f", "manifests/examples", "--timeout", "60s")
    published = local.await_whole("published", 2)
    node = next(node for node in local.nodes().values() if node.id == published[0].node_id)
    assert f"task={published[0].meta.name} " in get(node.address, port=18080)
    everywhere = {task.meta.name for task in local.await_whole("everywhere", 2)}
    for node in local.nodes().values():
        answer = get(node.address, port=18081)
        assert answer.partition(" ")[0].removeprefix("task=") in everywhere, f"{node.name} leads to {answer}"
    local.orchctl("delete", "-f", "manifests/examples")
    assert not tasks.running(local.plan)


def test_a_missing_image_says_what_to_do(local: LocalCluster) -> None:
    """An apply is refused; where only nodes can have it, the task tells, and so does the command that waits for it."""
    manifest = "kind: Service\nmeta: {name: lost}\nspec:\n  template: {container: {image: nowhere}}\n"
    local.orchctl("apply", "-f", "-", text=manifest, code=2)
    manifest = manifest.replace("nowhere", "nowhere, imagePullPolicy: never")
    local.orchctl("apply", "-f", "-", "--timeout", "5s", text=manifest, code=1)
    assert "image nowhere is not on this node" in local.orchctl("describe", "service", "lost")
    local.orchctl("delete", "service", "lost")
