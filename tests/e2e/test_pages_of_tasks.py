"""The pages on what a task is made of, and on its start and end, followed on a real cluster as `test_pages_of_services`
follows the others. What they tell of without showing it is tried by `test_containers`.
"""

from pathlib import Path

import pytest

from deploy import hello
from tests.support import pages
from tests.support.cluster import ROOT, LocalCluster
from tests.support.pages import Reader

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.slow, pytest.mark.usefixtures("emptied")]

CHAIN = "manifests/examples/depends-on.yaml"
CROWD = "manifests/examples/containers.yaml"
SHARED = "manifests/examples/volumes.yaml"
HOOKS = """\
kind: Service
meta: {name: hooks}
spec:
  template:
    stopGracePeriod: 1s
    restart: {condition: any, attempts: 20}
    container:
      image: hello
      lifecycle:
        postStart: {exec: {command: [/bin/busybox, "false"]}}
"""
MISSPELT = """\
kind: Service
meta: {name: web}
spec:
  template:
    container:
      image: hello
      env:
        SLOT: ${task.slto}
"""
WAITING = """\
kind: Service
meta: {{name: {name}}}
spec:
  dependsOn: {{{other}: ready}}
  template:
    stopGracePeriod: 1s
    container: {{image: hello}}
"""
SHOP = """\
kind: Service
meta: {name: shop}
spec:
  template:
    placement:
      constraints: ["node.labels.zone in (a, b)"]
      spread: [{by: node.labels.zone, maxSkew: 1}]
    init:
      - {name: migrate, image: shop-tools:2, resources: {reservations: {memory: 192Mi}}}
    container:
      image: shop:2
      resources:
        reservations: {cpu: 400m, memory: 64Mi, disk: 1Gi, pids: 100, generic: {gpu: 1}}
    sidecars:
      - {name: proxy, image: proxy:1, resources: {reservations: {cpu: 100m, memory: 64Mi, pids: 20}}}
"""
MIGRATING = """\
kind: Service
meta: {name: shop}
spec:
  template:
    stopGracePeriod: 1s
    restart: {condition: any, attempts: 20}
    init:
      - {name: greet, image: hello, command: [/bin/busybox, "true"]}
      - {name: migrate, image: hello, command: [/bin/busybox, sh, -c, "echo no such table; exit 3"]}
    container: {image: hello}
"""


@pytest.mark.parametrize("page", ["containers.md"])
def test_its_manifests_are_taken(page: str, local: LocalCluster) -> None:
    for one in pages.manifests(page):
        assert "created (dry run)" in local.orchctl("apply", "--dry-run", "-f", "-", text=one)


def test_a_task_starts_and_ends_as_on_the_page(local: LocalCluster, tmp_path: Path) -> None:
    """docs/lifecycle.md: a hook that fails, a value that there is not, and services that wait for each other."""
    reader = Reader(local=local, folder=tmp_path, page="lifecycle.md")
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    local.orchctl("apply", "--detach", "-f", "-", text=HOOKS)
    reader.sees("orchctl get tasks", within_s=20)
    local.orchctl("delete", "service", "hooks")
    reader.write("web.yaml", MISSPELT)
    reader.sees("orchctl apply -f web.yaml", code=2)
    local.orchctl("apply", "--detach", "-f", "-", text=WAITING.format(name="web", other="database"))
    reader.sees("orchctl get tasks", within_s=20)
    reader.write("database.yaml", WAITING.format(name="database", other="web"))
    reader.sees("orchctl apply -f database.yaml", code=2)
    local.orchctl("delete", "service", "web")
    local.orchctl("apply", "-f", CHAIN)
    reader.sees("orchctl stop shop-database shop-web", passing="stopping|it stops after")
    reader.sees("orchctl start shop-web shop-database", passing="0 of 1 ready")
    reader.sees(f"orchctl delete -f {CHAIN}", passing="to stop|being deleted")
    assert not reader.left


def test_several_containers_are_told_of_as_on_the_page(local: LocalCluster, tmp_path: Path) -> None:
    """docs/containers.md: what a task needs in sum, where it stands, what each container says, and what they share."""
    reader = Reader(local=local, folder=tmp_path, page="containers.md")
    image = tmp_path / "hello.tar"
    hello.write(image)
    for name in ("shop:2", "shop-tools:2", "proxy:1"):
        local.orchctl("image", "push", "--archive", str(image), "--name", name)
    local.orchctl("apply", "--detach", "-f", "-", text=SHOP)
    reader.sees("orchctl describe service shop")
    local.orchctl("delete", "service", "shop")
    local.orchctl("apply", "--detach", "-f", "-", text=MIGRATING)
    reader.sees("orchctl get tasks", within_s=20)
    local.orchctl("apply", "-f", CROWD)
    reader.sees("orchctl describe task crowd-1-rnr36t43")
    reader.sees("orchctl logs shop-1-iempgha3 -c migrate")
    reader.sees("orchctl logs crowd-1-rnr36t43 --all-containers")
    reader.sees("orchctl exec -c filez crowd-1-rnr36t43 -- true", code=1)
    local.orchctl("apply", "-f", SHARED)
    reader.sees("orchctl describe task pages-1-c4mtzk2p")
    reader.sees("orchctl exec pages-1-c4mtzk2p -- cat /srv/index.html")
    assert not reader.left
