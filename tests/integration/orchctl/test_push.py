"""`orchctl image push` and `apply --push`, from a person's store into a real cluster without any registry."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.images import StoredImages
from agent.rpc import Server
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from tests.support import control_process, etcd, orchctl
from tests.support.waiting import until

pytestmark = pytest.mark.etcd

MIB = 1024 * 1024
MANIFEST = """\
kind: Service
meta: {name: web}
spec:
  template: {container: {image: IMAGE}}
"""


@pytest.fixture(scope="module")
def store() -> Iterator[etcd.EtcdProcess]:
    with etcd.running() as running:
        yield running


@pytest.fixture
def control(store: etcd.EtcdProcess, tmp_path: Path) -> Iterator[control_process.Instance]:
    with control_process.instance("cp1", store.endpoint, tmp_path / "cp1", "--images-limit=256Mi") as one:
        one.wait_until_it_leads()
        yield one


@pytest.fixture
def environ(control: control_process.Instance, tmp_path: Path) -> dict[str, str]:
    return {**orchctl.environment(tmp_path, control.address), "ORCH_IMAGE_STORE": str(tmp_path / "mine")}


@pytest.fixture
def mine(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "mine")


def build(store: ImageStore, name: str, size: int = MIB) -> str:
    """The digest of a new image under that name."""
    return build_image(store, [File(path="data", content=os.urandom(size))], Config(cmd=("/data",)), name).digest


def test_only_what_is_missing_is_sent(environ: dict[str, str], mine: ImageStore) -> None:
    digest = build(mine, "web:1")
    first = orchctl.run(environ, "image", "push", "web:1")
    assert first.code == 0, first
    assert first.out == f"image/web:1 pushed ({digest.removeprefix('sha256:')[:12]}, 1.0Mi)\n"
    assert ": pushing 1.0Mi" in first.err
    mine.tag("web:2", digest)
    second = orchctl.run(environ, "image", "push", "web:2")
    assert second.code == 0, second
    assert "pushing" not in second.err
    assert second.err.count(": exists") == 2
    listed = orchctl.run(environ, "get", "images", "-o", "name").out.split()
    assert {"image/web:1", "image/web:2"} <= set(listed)


def test_a_push_that_was_killed_goes_on_where_it_was(
    environ: dict[str, str], mine: ImageStore, control: control_process.Instance
) -> None:
    digest = build(mine, "large:1", 96 * MIB)
    part = control.images / "parts" / mine.resolve(digest).layers[0].digest.removeprefix("sha256:")
    pushing = subprocess.Popen(orchctl.command("image", "push", "large:1"), env=environ, stderr=subprocess.DEVNULL)
    until(lambda: part.exists() and part.stat().st_size > 4 * MIB, what="some of it has come")
    pushing.send_signal(signal.SIGKILL)
    pushing.wait(10)
    come = part.stat().st_size
    assert 4 * MIB < come < 96 * MIB
    assert orchctl.run(environ, "get", "image", "large:1").code == 1, "nothing shows yet"
    again = orchctl.run(environ, "image", "push", "large:1")
    assert again.code == 0, again
    assert ImageStore(control.images).missing(digest) == ()


def test_what_does_not_fit_says_what_holds_the_room(environ: dict[str, str], mine: ImageStore) -> None:
    build(mine, "huge:1", 257 * MIB)
    refused = orchctl.run(environ, "image", "push", "huge:1")
    assert refused.code == 1
    assert "257Mi more do not fit" in refused.err
    assert "`orchctl delete image/NAME` frees some" in refused.err


def test_apply_tells_of_an_image_that_is_only_here_and_push_sends_it(environ: dict[str, str], mine: ImageStore) -> None:
    build(mine, "shop:1")
    manifest = MANIFEST.replace("IMAGE", "shop:1")
    refused = orchctl.run(environ, "apply", "-f", "-", "--detach", stdin=manifest)
    assert refused.code == 2
    assert "the cluster has no image shop:1; shop:1 is on this machine only" in refused.err
    assert "`orchctl apply --push …` sends what is missing" in refused.err
    applied = orchctl.run(environ, "apply", "-f", "-", "--detach", "--push", stdin=manifest)
    assert applied.code == 0, applied
    assert applied.out.startswith("image/shop:1 pushed (")
    assert applied.out.endswith("service/web created\n")
    again = orchctl.run(environ, "apply", "-f", "-", "--detach", "--push", stdin=manifest)
    assert again.out == "service/web unchanged\n"
    digest = build(mine, "shop:1")
    moved = orchctl.run(environ, "apply", "-f", "-", "--detach", "--push", stdin=manifest)
    assert f"→ {digest.removeprefix('sha256:')[:12]}\n" in moved.out
    orchctl.run(environ, "delete", "service", "web", "--detach")


def test_an_unknown_image_is_refused_with_the_nearest_name(environ: dict[str, str], mine: ImageStore) -> None:
    build(mine, "frontend:1")
    assert orchctl.run(environ, "image", "push", "frontend:1").code == 0
    refused = orchctl.run(environ, "apply", "-f", "-", "--detach", stdin=MANIFEST.replace("IMAGE", "fronted:1"))
    assert refused.code == 2
    assert "the cluster has no image fronted:1" in refused.err
    assert 'did you mean "frontend:1"?' in refused.err
    unknown = orchctl.run(environ, "image", "push", "nowhere:1")
    assert unknown.code == 1
    assert "nowhere" in unknown.err


@pytest.mark.root
def test_the_next_leader_gives_a_fresh_node_what_the_killed_one_took_in(
    store: etcd.EtcdProcess, tmp_path: Path, mine: ImageStore
) -> None:
    digest = build(mine, "kept:1", 8 * MIB)
    with control_process.instance("a", store.endpoint, tmp_path / "a") as leader:
        leader.wait_until_it_leads()
        with control_process.instance("b", store.endpoint, tmp_path / "b") as other:
            environ = {**orchctl.environment(tmp_path, leader.address), "ORCH_IMAGE_STORE": str(mine.root)}
            assert orchctl.run(environ, "image", "push", "kept:1").code == 0
            kept = other.images / "blobs" / "sha256"
            wanted = [*mine.resolve(digest).layers, mine.resolve(digest)]
            files = [kept / one.digest.removeprefix("sha256:") for one in wanted]
            until(lambda: all(path.exists() for path in files), what="the follower has the image")
            leader.kill()
            other.wait_until_it_leads()
            assert asyncio.run(_prepared(other.address, tmp_path / "node")) == digest


def test_a_push_outlives_its_leader(store: etcd.EtcdProcess, tmp_path: Path, mine: ImageStore) -> None:
    """It is killed in the middle; the next one takes the image in."""
    digest = build(mine, "moving:1", 96 * MIB)
    layer = mine.resolve(digest).layers[0].digest.removeprefix("sha256:")
    with control_process.instance("c", store.endpoint, tmp_path / "c") as leader:
        leader.wait_until_it_leads()
        with control_process.instance("d", store.endpoint, tmp_path / "d") as other:
            until(lambda: _answers(other.address), what="the other one serves")
            environ = {**orchctl.environment(tmp_path, other.address), "ORCH_IMAGE_STORE": str(mine.root)}
            pushing = subprocess.Popen(
                orchctl.command("image", "push", "moving:1"), env=environ, stderr=subprocess.PIPE, text=True
            )
            part = leader.images / "parts" / layer
            until(lambda: part.exists() and part.stat().st_size > 4 * MIB, what="some of it has come")
            leader.kill()
            _, said = pushing.communicate(timeout=60)
            assert pushing.returncode == 0, said
            assert ImageStore(other.images).missing(digest) == ()


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address.removeprefix("unix:")) == 0


async def _prepared(address: str, folder: Path) -> str:
    """The digest of `kept:1` as an agent has it that starts with an empty disk."""
    server = Server("fresh")
    link = await server.connect(address)
    images = StoredImages(folder, server)
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            life = group.create_task(images.run())
            await images.started.wait()
            prepared = await images.prepare("kept:1", "")
            life.cancel()
    finally:
        await link.close()
        await server.close()
    return prepared.digest
