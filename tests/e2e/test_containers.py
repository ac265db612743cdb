"""Several containers in a task, hooks, and services that wait for others, on a real cluster."""

import os
import signal
from pathlib import Path

import pytest

from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support.cluster import ROOT, LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

CROWD = "manifests/examples/containers.yaml"
CHAIN = "manifests/examples/depends-on.yaml"
SHARED = "manifests/examples/volumes.yaml"
SLOW = """\
kind: Service
meta: {name: slow}
spec:
  template:
    stopGracePeriod: 3s
    restart: {condition: on-failure, attempts: 3}
    init:
      - {name: first, image: hello, command: [/bin/busybox, echo, once]}
      - {name: second, image: hello, command: [/bin/busybox, sh, -c, "echo begins; sleep 8; echo ends"]}
    container: {image: hello}
"""
HOOKS = """\
kind: Service
meta: {{name: hooks}}
spec:
  template:
    stopGracePeriod: 5s
    restart: {{condition: any, attempts: 20}}
    container:
      image: hello
      lifecycle:
        postStart: {{exec: {{command: [/bin/busybox, sh, -c, "{start}"]}}, timeout: 5s}}
        preStop: {{exec: {{command: [/bin/busybox, sh, -c, "echo farewell > /proc/1/fd/1; sleep 1"]}}}}
"""


def only(local: LocalCluster, service: str) -> pb.Task:
    """The service's task."""
    (task,) = [task for task in local.tasks(service) if not states.is_terminal(task.status.state)]
    return task


def node_of(local: LocalCluster, task: pb.Task) -> str:
    """The name of its node."""
    return next(node.name for node in local.nodes().values() if node.id == task.node_id)


def on_disk(local: LocalCluster, task: pb.Task) -> Path:
    """What its node keeps of it, in that machine's own tree."""
    node = node_of(local, task)
    return Path(f"/proc/{local.agent_pid(node)}/root{local.plan.node_folder(node)}/tasks/{task.meta.id}")


def test_a_task_of_several_containers(local: LocalCluster) -> None:
    """In order, with one network, each with logs and commands of its own; and everything is gone with it."""
    local.orchctl("apply", "-f", CROWD)
    (task,) = local.await_whole("crowd", 1)
    node = node_of(local, task)
    name = task.meta.name
    assert local.orchctl("logs", name, "-c", "greet") == f"slot 1 of crowd on {node}\n"
    assert f"{name}/greet | slot 1" in local.orchctl("logs", name, "--all-containers")
    assert local.orchctl("exec", name, "--", "sh", "-c", 'echo "$WHO, $HOME_OF"') == (
        f"{name} at {task.status.address}, ${{HOME}} stays as it is\n"
    )
    through = local.orchctl("exec", "-c", "files", name, "--", "wget", "-qO-", "http://127.0.0.1:8080/")
    assert f"task={name}" in through
    assert name in local.orchctl("exec", name, "--", "wget", "-qO-", "http://127.0.0.1:9000/hostname")
    assert "has no container 'filez'" in local.refusal("exec", "-c", "filez", name, "--", "true")
    local.orchctl("delete", "-f", CROWD)
    assert not local.tasks("crowd")


def test_an_init_container_survives_its_agent(local: LocalCluster) -> None:
    """What has ended well is not run again; what runs goes on and is waited for; the main one comes after it."""
    local.orchctl("apply", "-f", "-", "--detach", text=SLOW)
    said = "init container second (2 of 2) runs"
    until(lambda: said in [task.status.message for task in local.tasks("slow")], what=said, timeout_s=20)
    task = only(local, "slow")
    assert task.status.state == states.STARTING
    node = node_of(local, task)
    os.kill(local.agent_pid(node), signal.SIGKILL)
    (whole,) = local.await_whole("slow", 1, timeout_s=30)
    assert whole.meta.id == task.meta.id
    assert local.orchctl("logs", task.meta.name, "-c", "first") == "once\n"
    assert local.orchctl("logs", task.meta.name, "-c", "second") == "begins\nends\n"
    local.orchctl("delete", "service", "slow")


def test_the_containers_of_a_task_share_a_volume(local: LocalCluster) -> None:
    """Kept over a restart of a container and over the agent's death; another task begins with an empty one; and what is
    deleted leaves nothing on its node.
    """
    local.orchctl("apply", "-f", SHARED)
    (task,) = local.await_whole("pages", 1)
    name, node = task.meta.name, node_of(local, task)
    made = f"made for {name}\n"
    assert local.orchctl("exec", name, "--", "cat", "/srv/index.html") == made
    assert local.orchctl("exec", "-c", "clock", name, "--", "cat", "/var/site/index.html") == made
    assert "Read-only file system" in local.refusal("exec", name, "--", "touch", "/srv/x")
    assert local.orchctl("exec", "-c", "clock", name, "--", "sh", "-c", "id -u; echo kept > /var/site/kept") == "2000\n"
    os.kill(local.agent_pid(node), signal.SIGKILL)
    os.kill(local.container_pid(task.meta.id), signal.SIGKILL)
    until(lambda: (now := only(local, "pages").status).restarts == 1 and now.ready, what="a restart", timeout_s=30)
    assert local.orchctl("exec", name, "--", "cat", "/srv/kept") == "kept\n"
    assert "site     main        /srv        read" in local.orchctl("describe", "task", name)
    changed = (ROOT / SHARED).read_text().replace(", readOnly: true", "")
    assert "-          readOnly: true" in local.run("diff", "-f", "-", text=changed).stdout
    local.orchctl("apply", "-f", "-", text=changed)
    (after,) = local.await_whole("pages", 1, timeout_s=30)
    assert after.meta.name != name
    kept = [on_disk(local, one) for one in (task, after)]
    assert (kept[1] / "volumes/site").is_dir()
    listed = "index.html\nmine\ntime.html\n"
    assert local.orchctl("exec", after.meta.name, "--", "sh", "-c", "touch /srv/mine; ls /srv") == listed
    local.orchctl("delete", "service", "pages")
    until(lambda: not any(folder.exists() for folder in kept), what="nothing is left of them")


def test_hooks(local: LocalCluster) -> None:
    """A task is ready after its postStart hook, and its preStop hook runs before it is told to stop."""
    local.orchctl("apply", "-f", "-", text=HOOKS.format(start="sleep 1"))
    (task,) = local.await_whole("hooks", 1)
    following = local.start_orchctl("logs", "-f", task.meta.name)
    local.orchctl("delete", "service", "hooks")
    assert "farewell" in following.communicate(timeout=20)[0]
    local.orchctl("apply", "-f", "-", "--timeout", "4s", text=HOOKS.format(start="echo no; exit 3"), code=1)
    said = "postStart hook failed: exit code 3: no"
    until(lambda: said in local.orchctl("describe", "service", "hooks"), what=said)
    local.orchctl("delete", "service", "hooks")


def test_services_wait_for_each_other(local: LocalCluster) -> None:
    """The web server waits for the migration, which waits for the database; and the database is the last to go."""
    local.orchctl("apply", "-f", CHAIN)
    (web,) = local.await_whole("shop-web", 1)
    (migration,) = local.tasks("shop-migration")
    (database,) = local.await_whole("shop-database", 1)
    assert migration.status.state == states.COMPLETE
    assert database.status.started_at <= migration.status.started_at <= web.status.started_at
    assert "shop-database:8080" not in local.orchctl("logs", migration.meta.name)
    local.orchctl("delete", "-f", CHAIN)
    assert not any(local.tasks(name) for name in ("shop-web", "shop-migration", "shop-database"))


def test_a_task_says_what_it_waits_for(local: LocalCluster) -> None:
    """It is prepared and held, however long; and starts when the other one has come."""
    waiting = (
        "kind: Service\nmeta: {name: waits}\nspec:\n  dependsOn: {late: ready}\n"
        "  template: {stopGracePeriod: 2s, container: {image: hello}}\n"
    )
    said = "waits for late to be ready, which does not exist"
    local.orchctl("apply", "-f", "-", "--detach", text=waiting)
    until(lambda: said in local.orchctl("describe", "service", "waits"), what=said)
    assert only(local, "waits").status.state == states.READY
    local.apply_hello("late", replicas=1)
    (task,) = local.await_whole("waits", 1)
    local.orchctl("delete", "service", "late")
    (after,) = local.await_whole("waits", 1)
    assert after.meta.id == task.meta.id, "what was let go is not held again"
    local.orchctl("delete", "service", "waits")


def test_of_those_that_stop_together_the_needed_stop_last(local: LocalCluster) -> None:
    """In whichever order they are named. The one that is needed begins to stop when the other has ended."""
    user = (
        "kind: Service\nmeta: {name: user}\nspec:\n  dependsOn: {needed: ready}\n  template:\n    container:\n"
        "      image: hello\n      lifecycle: {preStop: {exec: {command: [/bin/busybox, sleep, '2']}}}\n"
    )
    local.apply_hello("needed", replicas=2)
    local.orchctl("apply", "-f", "-", text=user)
    local.orchctl("stop", "--detach", "needed", "user")
    until(lambda: "it stops after user" in local.orchctl("describe", "service", "needed"), what="it says so")

    def begun() -> tuple[list[pb.Task]] | None:
        everything = local.tasks("")
        wanted = [one.desired_state for one in everything if one.service == "needed"]
        return None if wanted == [pb.DESIRED_STATE_RUNNING] * 2 else (everything,)

    (everything,) = until(begun, what="it begins to stop")
    assert not [one for one in everything if one.service == "user" and not states.is_terminal(one.status.state)]
    local.orchctl("start", "needed", "user")
    local.orchctl("stop", "needed", "user")
    assert not [one for one in local.tasks("") if one.service in {"needed", "user"}]
    local.orchctl("delete", "service", "needed", "user")


def test_a_service_for_a_while(local: LocalCluster) -> None:
    """It goes by itself."""
    local.apply_hello("brief", replicas=1, more="  ttl: 3s\n")
    until(lambda: not local.tasks("brief"), what="its time is over", timeout_s=20)
    assert "there is no service" in local.refusal("get", "service", "brief")


def test_cycles_are_refused(local: LocalCluster) -> None:
    """With the way that they take, and nothing is applied."""
    text = "".join(
        f"---\nkind: Service\nmeta: {{name: {name}}}\nspec:\n  dependsOn: {{{other}: ready}}\n"
        "  template: {container: {image: hello}}\n"
        for name, other in (("ring-a", "ring-b"), ("ring-b", "ring-a"))
    )
    assert "ring-a → ring-b → ring-a wait for each other" in local.refusal("apply", "-f", "-", text=text)
    assert not local.tasks("ring-a")
