"""What real containers have changed, as layers: against podman, which compares whole trees."""

import io
import subprocess
import sys
import tarfile

import pytest

from images import differences, tree
from images.store import ImageStore
from protos import states
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from runtime import client
from tests.integration.agent.conftest import REPOSITORY, Node, led
from tests.support import committed
from tests.support.aio import bounded, until
from tests.support.fake_leader import FakeLeader, task, template
from tests.support.waiting import until as until_now

pytestmark = pytest.mark.root

CHANGES = """
set -e
mkdir -p /srv/deep/er && echo hello > /srv/deep/er/file && ln /srv/deep/er/file /srv/hard && ln -s deep /srv/soft
chmod 4750 /srv/hard && chown 1000:70 /srv/hard && chmod 1777 /srv && mkfifo /srv/pipe
rm /bin/tac && rm -r /www/cgi-bin && mkdir /www/cgi-bin && echo new > /www/cgi-bin/only
rm /bin/yes && mkdir /bin/yes && mv /bin/wc /bin/count
dd if=/dev/zero of=/srv/sparse bs=1 count=1 seek=300000 2>/dev/null && touch -d '2001-02-03 04:05:06' /srv/old
"""
READY = "touch /tmp-ready; sleep 1000"
OF_PODMAN = {"", "run", "run/.containerenv", "run/secrets", "etc/mtab"}
"""What podman leaves of its own in every container; and the top folder, which it lists in no layer."""


@bounded(120)
async def test_the_image_is_what_podman_makes_of_the_same_changes(node: Node, store: ImageStore) -> None:
    """New, removed, replaced and renamed files, owners, modes, links and holes; nothing that was only mounted on."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", f"{CHANGES}{READY}"))
        await leader.running("web-1-a")
        await until((node.state / "tasks/web-1-a/upper/tmp-ready").exists, what="the changes are made")
        taken = await committed.take(leader, "web-1-a")
    ours = taken.into(store, "ours:1")
    with committed.podman() as podman:
        base = store.resolve("hello:1")
        podman.load(store, base)
        theirs = podman.commit("hello:1", ["sh", "-c", f"{CHANGES} touch /tmp-ready"], store)
    assert [layer.digest for layer in ours.layers[:-1]] == [layer.digest for layer in base.layers]
    different = differences.compare(store, theirs, ours)
    assert [one for one in different if one.path not in OF_PODMAN and not _is_mounted(one.path)] == []
    names = set(tree.files(tree.Layers(store=store), ours))
    assert not {path for path in names if _is_mounted(path)}, "only what the container itself has made"
    assert {"srv/deep/er/file", "srv/hard", "bin/count", "bin/yes", "www/cgi-bin/only"} <= names
    assert not {"bin/tac", "bin/wc", "www/cgi-bin/index"} & names


def _is_mounted(path: str) -> bool:
    return path.split("/", maxsplit=1)[0] in {"proc", "sys", "dev", "etc"}


@bounded(60)
async def test_a_container_that_has_changed_nothing_gives_an_empty_layer(node: Node, store: ImageStore) -> None:
    """The same image again: folders that were copied up for a mount are no change; and the same bytes each time."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sleep", "1000"))
        await leader.running("web-1-a")
        first, second = await committed.take(leader, "web-1-a"), await committed.take(leader, "web-1-a", running=True)
    assert first.offer == second.offer
    assert _names(first) == ["."]
    base = store.resolve("hello:1")
    assert [one.path for one in differences.compare(store, base, first.into(store, "same:1"))] == [""], (
        "not listed before"
    )
    assert (first.offer.task, first.offer.manifest) == ("web-1-a", store.read_document(base.digest))


@bounded(60)
async def test_ids_attributes_and_capabilities_are_the_containers(node: Node, store: ImageStore) -> None:
    """The container has users of its own: what it sees as 1000 is 1000 in the layer, in attributes as well."""
    script = f"mkdir /srv; echo x > /srv/program; chown 1000:1000 /srv/program; {READY}"
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", script))
        await leader.running("web-1-a")
        await until((node.state / "tasks/web-1-a/upper/tmp-ready").exists, what="the file is made")
        pid = node.containers()["web-1-a"]
        assert node.run("cat", f"/proc/{pid}/uid_map").split()[:2] != ["0", "0"], "it has users of its own"
        _inside(pid, "os.setxattr('/srv/program', 'user.colour', b'red')")
        capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep
        _inside(pid, f"os.setxattr('/srv/program', 'security.capability', bytes.fromhex('{capability.hex()}'))")
        taken = await committed.take(leader, "web-1-a")
    ours = taken.into(store, "ids:1")
    entry = tree.files(tree.Layers(store=store), ours)["srv/program"].entry
    assert (entry.uid, entry.gid) == (1000, 1000)
    assert dict(entry.xattrs) == {"user.colour": b"red", "security.capability": capability}


def _inside(pid: int, statement: str) -> None:
    """Run a statement of Python as the root of a container, among its files."""
    enter = "; ".join(f"syscalls.setns(os.open('/proc/{pid}/ns/{kind}', os.O_RDONLY), 0)" for kind in ("user", "mnt"))
    code = (
        f"import os; from runtime import syscalls; os.setgroups([]); {enter}; os.setgid(0); os.setuid(0); {statement}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=20)


def _names(taken: committed.Committed) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(taken.blobs[taken.offer.layer.digest])) as layer:
        return [member.name for member in layer]


async def until_taken(leader: FakeLeader) -> None:
    """While the container runs. A file that is written anew at the very moment is told, to be asked for again."""
    for _ in range(100):
        frames, _ = await committed.opened(leader, "web-1-a", running=True)
        first = await anext(frames)
        if first.commit.HasField("offer"):
            return
        assert first.error.message.endswith("try again"), first
    raise AssertionError("a hundred times in a row the file was just being written")


COUNTING = "n=0; while :; do n=$((n+1)); echo $n > /a; echo $n > /b; done"
"""Two files that are equal or nearly so at every moment."""


@bounded(60)
async def test_files_are_of_one_moment_and_the_container_goes_on(node: Node, store: ImageStore) -> None:
    """It stands still while it is read; afterwards it counts on, and a read of the running one does not stop it."""
    counter = node.state / "tasks/web-1-a/upper/b"
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", COUNTING))
        await leader.running("web-1-a")
        await until(lambda: counter.exists() and counter.read_text() != "", what="it counts")
        for _ in range(5):
            taken = await committed.take(leader, "web-1-a")
            with tarfile.open(fileobj=io.BytesIO(taken.blobs[taken.offer.layer.digest])) as layer:
                texts = [layer.extractfile(name).read().decode().strip() for name in ("a", "b")]  # type: ignore[union-attr]
            one, other = (int(text or -1) for text in texts)
            assert -1 in {one, other} or 0 <= one - other <= 1
            before = counter.read_text()
            await until(lambda before=before: counter.read_text() not in {"", before}, what="it goes on")  # type: ignore[misc]
        await until_taken(leader)
        assert leader.statuses["web-1-a"].restarts == 0


@bounded(60)
async def test_a_container_stands_still_no_longer_than_anybody_holds_it(node: Node, store: ImageStore) -> None:
    """Its monitor lets it go on when the last of those who asked has gone, as one does who is killed."""
    counter = node.state / "tasks/web-1-a/upper/b"
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", COUNTING))
        await leader.running("web-1-a")
        await until(counter.exists, what="it counts")
        root = str(node.state / "run")
        with client.adopt(root, "web-1-a") as mine, client.adopt(root, "web-1-a") as other:
            mine.pause()
            other.pause()
            still = counter.read_text()
            assert client.cgroup(root, "web-1-a").is_frozen()
            mine.close()
            assert other.state().status == "running", "answered, so the other one's end has been seen"
            assert client.cgroup(root, "web-1-a").is_frozen()
            assert counter.read_text() == still
        until_now(lambda: counter.read_text() not in {"", still}, what="it goes on")


@bounded(60)
async def test_whoever_hangs_up_leaves_nothing_behind(node: Node, store: ImageStore) -> None:
    """Half of a large reading is dropped, and the container goes on."""
    script = f"dd if=/dev/urandom of=/large bs=1M count=200 2>/dev/null; {READY}"
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template("sh", "-c", script))
        await leader.running("web-1-a")
        await until((node.state / "tasks/web-1-a/upper/tmp-ready").exists, what="it is large", timeout_s=30)
        work = node.state / "images/tmp"
        _, hang_up = await committed.opened(leader, "web-1-a")
        await until(lambda: any(work.iterdir()), what="the reading has begun")
        await hang_up.put(None)
        await until(lambda: not any(work.iterdir()), what="what was read is gone")
        root = str(node.state / "run")
        await until(lambda: not client.cgroup(root, "web-1-a").is_frozen(), what="it goes on")
        # Of the next one, nothing but the changes; whoever wishes for what was not offered is refused.
        frames, send = await committed.opened(leader, "web-1-a")
        offer = await committed.offered(frames)
        assert offer.layer.size > 200 << 20
        await send.put(dpb.StreamFrame(wish=cpb.CommitWish(digests=["sha256:" + "0" * 64])))
        assert (await anext(frames)).commit.blob
        assert "no part of what was offered" in (await anext(frames)).error.message


@bounded(60)
async def test_one_that_has_ended_can_still_be_committed_and_others_are_refused(node: Node, store: ImageStore) -> None:
    """As long as its node has it; what was never started, is not there, or cannot be in an image is told in words."""
    async with led(node, store) as leader:
        made = template("sh", "-c", "echo done > /result; exit 0")
        made.restart.condition = pb.RESTART_CONDITION_NEVER
        await leader.assign(task("job-1-a"), template=made)
        await leader.until("job-1-a", lambda now: states.is_terminal(now.state), what="it ends")
        base = store.resolve("hello:1")
        taken = await committed.take(leader, "job-1-a", base.layers[0].digest)
        assert _names(taken) == [".", "result"]
        assert len(taken.blobs[base.layers[0].digest]) == base.layers[0].size_bytes
        frames, _ = await committed.opened(leader, "nobody")
        assert "nobody is not on this node" in await committed.refused(frames)
        script = f"mkfifo /.wh.trick; {READY}"
        await leader.assign(task("odd-1-a", revision="r2"), template=template("sh", "-c", script))
        await leader.running("odd-1-a")
        await until((node.state / "tasks/odd-1-a/upper/tmp-ready").exists, what="it has made its trick")
        frames, _ = await committed.opened(leader, "odd-1-a")
        assert "/.wh.trick: a name that begins with .wh." in await committed.refused(frames)


@bounded(60)
async def test_a_container_beside_the_main_one(node: Node, store: ImageStore) -> None:
    """It is named, and has files of its own."""
    async with led(node, store) as leader:
        made = template("sleep", "1000")
        made.sidecars.add(name="proxy", image="hello:1", command=["sh", "-c", f"echo x > /of-the-proxy; {READY}"])
        await leader.assign(task("web-1-a"), template=made)
        await leader.running("web-1-a")
        ready = node.state / "tasks/web-1-a/containers/proxy/upper/tmp-ready"
        await until(ready.exists, what="the proxy has written")
        assert _names(await committed.take(leader, "web-1-a", container="proxy")) == [".", "of-the-proxy", "tmp-ready"]
        assert _names(await committed.take(leader, "web-1-a", container="main")) == ["."]
