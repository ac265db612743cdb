"""What a person does with a task that was changed by hand: an image of it, here and in the cluster."""

import json
from pathlib import Path

import pytest

from images.store import ImageStore
from tests.support import committed
from tests.support.cluster import LocalCluster

pytestmark = pytest.mark.root

MANIFEST = """\
kind: Service
meta: {name: copy}
spec: {replicas: 1, template: {stopGracePeriod: 1s, container: {image: "fixed:1"}}}
"""
CHANGE = "mkdir /srv && echo by hand > /srv/note && rm /bin/yes"


def test_a_task_is_committed_pushed_and_runs_as_another_service(local: LocalCluster, tmp_path: Path) -> None:
    """Its files, without what was removed; started as the image says and as was asked; and podman runs it too."""
    (task,) = local.apply_hello("original", replicas=1)
    name, folder = task.meta.name, str(tmp_path / "mine")
    local.orchctl("exec", name, "--", "sh", "-c", CHANGE)
    said = ("-c", "ENV COLOUR=red", "-c", "LABEL by=hand", "-m", "a note", "-a", "Ann")
    told = local.orchctl("commit", name, "fixed:1", "--store", folder, "--push", *said)
    assert told.startswith("image/fixed:1 committed and pushed (")
    store = ImageStore(Path(folder))
    image = store.resolve("fixed:1")
    assert (image.history[-1].author, image.history[-1].comment) == ("Ann", "a note")
    assert image.history[-1].created_by == f"orchctl commit default/{name}"
    assert "COLOUR=red" in image.config.env
    assert image.config.labels["by"] == "hand"

    local.orchctl("apply", "-f", "-", text=MANIFEST)
    (copy,) = local.await_whole("copy", 1)
    assert local.service("copy").spec.images["fixed:1"] == image.digest
    script = "cat /srv/note; test -e /bin/yes || echo gone; echo $COLOUR; echo $ORCH_SERVICE"
    assert local.orchctl("exec", copy.meta.name, "--", "sh", "-c", script) == "by hand\ngone\nred\ncopy\n"

    with committed.podman() as podman:
        podman.load(store, image)
        assert podman.config("fixed:1")["Labels"] == {"by": "hand"}
        options = ("--rm", "--network=none", f"--cgroup-parent={committed.CGROUP}")
        assert podman.run("run", *options, "fixed:1", "cat", "/srv/note") == "by hand"
    local.orchctl("delete", "service", "original")
    local.orchctl("delete", "service", "copy")


def test_what_is_here_is_not_sent_again_and_mistakes_change_nothing(local: LocalCluster, tmp_path: Path) -> None:
    """A second commit brings its own layer only; a mistake is told before anything is read."""
    (task,) = local.apply_hello("again", replicas=1)
    store, name = ("--store", str(tmp_path / "mine")), task.meta.name
    local.orchctl("commit", name, "first", *store)
    local.orchctl("commit", f"task/{name}", "second", "--running", "-m", "another image than the first", *store)
    images = {one["names"][0]: one for one in json.loads(local.orchctl("image", "ls", "-o", "json", *store))}
    assert images["first:latest"]["digest"] != ""
    assert images["second:latest"]["uniqueBytes"] < 10_000, "the image below is there once"
    for words, reason in (
        (("nobody", "third"), "there is no task 'nobody'"),
        ((name, "third", "--container", "nobody"), "has no container 'nobody'"),
        ((name, "third", "-c", "RUN make"), "RUN changes more than settings"),
        ((name, "third@sha256:" + "0" * 64), "pins a digest"),
        ((name, "registry.lan:5000/third", "--push"), "names a registry"),
    ):
        assert reason in local.refusal("commit", *words, *store)
    assert set(ImageStore(tmp_path / "mine").names()) == {
        "docker.io/library/first:latest",
        "docker.io/library/second:latest",
    }
    local.orchctl("delete", "service", "again")
