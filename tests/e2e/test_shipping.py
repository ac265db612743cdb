"""An image that a person has on their machine runs in the cluster, and no registry is involved."""

import io
import json
import os
import signal
import tarfile
from pathlib import Path

import pytest

from agent.core import sharing
from deploy import hello
from images import archive
from images.image import Config
from images.store import ImageStore
from tests.support.cluster import LocalCluster, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

# What moves after all has settled has gone by the time that somebody looks into it: nothing is to move.
MANIFEST = """\
kind: Service
meta: {name: NAME}
spec:
  replicas: 3
  rebalance: off
  template: {stopGracePeriod: 2s, container: {image: NAME}}
"""


def build(folder: Path, name: str, version: int) -> str:
    """The digest of an image in a person's store whose programs see the version that it is."""
    tar = folder / "rootfs.tar"
    hello.write(tar)
    config = Config(cmd=(hello.START,), env=("PATH=/bin", f"VERSION={version}"))
    return archive.import_archive(ImageStore(folder / "mine"), tar, name=name, config=config).digest


def version(local: LocalCluster, task: str) -> str:
    return local.orchctl("exec", task, "--", "sh", "-c", "echo $VERSION").strip()


def test_from_a_persons_store_to_every_node_and_pinned_until_the_next_apply(
    local: LocalCluster, tmp_path: Path
) -> None:
    """`web` comes to mean another image; what dies or is added is of the one that was applied, until the next apply."""
    store, manifest = ("--store", str(tmp_path / "mine")), MANIFEST.replace("NAME", "web")
    first = build(tmp_path, "web", 1)
    refused = local.orchctl("apply", "-f", "-", *store, text=manifest, code=2)
    assert not refused, "nothing was applied"
    pushed = local.orchctl("apply", "-f", "-", "--push", *store, text=manifest)
    assert pushed.startswith(f"image/web:latest pushed ({first.removeprefix('sha256:')[:12]})\n")
    replicas = names_of(local.await_whole("web", 3))
    assert [version(local, name) for name in replicas] == ["1", "1", "1"]
    described = [one["status"]["description"] for one in json.loads(local.orchctl("get", "nodes", "-o", "json"))]
    assert all(one["blobPort"] for one in described), "nodes give layers to each other"

    second = build(tmp_path, "web", 2)
    local.orchctl("image", "push", "web", *store)
    os.kill(local.container_pid(replicas[0]), signal.SIGKILL)
    until(lambda: local.task(replicas[0]).status.restarts == 1, what="the restart is reported")
    until(lambda: local.task(replicas[0]).status.ready, what="it is ready again")
    local.orchctl("scale", "web=4")
    assert {version(local, name) for name in names_of(local.await_whole("web", 4))} == {"1"}

    local.orchctl("scale", "web=3")
    applied = local.orchctl("apply", "-f", "-", text=manifest)
    assert f"→ {second.removeprefix('sha256:')[:12]}\n" in applied
    assert {version(local, name) for name in names_of(local.await_whole("web", 3))} == {"2"}
    assert local.service("web").spec.images["web"] == second
    assert "unchanged" in local.orchctl("apply", "-f", "-", text=manifest)

    local.orchctl("rollout", "undo", "web")
    assert {version(local, name) for name in names_of(local.await_whole("web", 3))} == {"1"}
    local.orchctl("delete", "service", "web")


def test_a_digest_can_be_named(local: LocalCluster, tmp_path: Path) -> None:
    digest = build(tmp_path, "pinned", 7)
    local.orchctl("image", "push", "pinned", "--store", str(tmp_path / "mine"))
    manifest = MANIFEST.replace("image: NAME", f'image: "pinned@{digest}"').replace("NAME", "pinned")
    local.orchctl("apply", "-f", "-", text=manifest)
    assert {version(local, name) for name in names_of(local.await_whole("pinned", 3))} == {"7"}
    local.orchctl("delete", "service", "pinned")


def test_a_layer_that_only_a_node_has_any_more_reaches_the_others(local: LocalCluster, tmp_path: Path) -> None:
    """It is gone from the control plane's disk: who has it now has it from that node, over TLS."""
    tar = tmp_path / "large.tar"
    hello.write(tar)
    with tarfile.open(tar, "a") as archived:
        data = os.urandom(sharing.SMALL_BYTES)
        archived.addfile(tarfile.TarInfo("noise"), io.BytesIO(data))
    store = ImageStore(tmp_path / "mine")
    layer = archive.import_archive(store, tar, name="large", config=Config(cmd=(hello.START,))).layers[0].digest
    local.orchctl("image", "push", "large", "--store", str(tmp_path / "mine"))
    manifest = MANIFEST.replace("NAME", "large").replace("replicas: 3", "replicas: 1")
    local.orchctl("apply", "-f", "-", text=manifest)
    (first,) = local.await_whole("large", 1)

    blob = Path("images", "blobs", "sha256", layer.removeprefix("sha256:"))
    kept = {name: local.plan.node_folder(name) / blob for name in local.plan.node_names}
    assert [name for name, path in kept.items() if path.exists()] == [
        name for name, node in local.nodes().items() if node.id == first.node_id
    ]
    (local.folder / "cp1" / blob).unlink()
    local.orchctl("scale", "large=3")
    local.await_whole("large", 3)
    assert all(path.exists() for path in kept.values())
    local.orchctl("delete", "service", "large")


def test_a_node_that_is_cut_off_starts_what_it_has_without_asking(local: LocalCluster) -> None:
    """The control plane answers nobody; the agent dies, returns, and starts the container anew from its own store."""
    (task,) = local.apply_hello("alone", replicas=1)
    node = next(name for name, node in local.nodes().items() if node.id == task.node_id)
    pid, agent = local.container_pid(task.meta.name), local.agent_pid(node)
    control = local.process("cp1").pid
    os.kill(control, signal.SIGSTOP)
    try:
        os.kill(agent, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        until(lambda: local.container_pid(task.meta.name) != pid, what="the container was started again", timeout_s=20)
    finally:
        os.kill(control, signal.SIGCONT)
    until(lambda: local.task(task.meta.name).status.restarts == 1, what="it is reported", timeout_s=30)
    local.orchctl("delete", "service", "alone")
