"""Backups of real clusters, by the commands that people type: what is refused, and an etcd that is somebody else's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import machines_of_control
from tests.support.machines_of_control import Estate, Machine, members
from tests.support.waiting import until

pytestmark = pytest.mark.etcd


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with machines_of_control.estate(tmp_path) as made:
        yield made


def _restore(estate: Estate, path: Path, at: Machine, code: int = 0, *more: str) -> str:
    where = (f"--name={at.name}", f"--trust={at.trust}", f"--server={at.server}", *more)
    return estate.orchctl("cluster", "restore", str(path), *where, code=code)


def test_a_backup_is_restored_on_a_fresh_machine_and_others_join_it(estate: Estate) -> None:
    """With another name and address. Members come as they are, tokens open the door, and the old instance is out."""
    first, fresh, second = (estate.machine(name) for name in ("cp1", "cp7", "cp2"))
    tokens = estate.found(first)
    first.start()
    estate.until_leads(first)
    path = estate.folder / "home.backup"
    assert "whoever has it is master" in estate.orchctl("cluster", "backup", f"--trust={first.trust}", f"--out={path}")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "is there already" in estate.orchctl("cluster", "backup", f"--trust={first.trust}", f"--out={path}", code=1)
    founder = estate.admin
    first.stop()

    said = _restore(estate, path, fresh, 0, "--context=restored")
    assert f"orch-etcd --trust {fresh.trust}" in said
    fresh.start()
    until(lambda: (answer := fresh.ask(founder)) and answer.leader == "cp7", what="the restored one leads")
    assert not (fresh.trust / "restoring.bin").exists()
    listed = estate.orchctl("cluster", "member", "ls")
    assert "controlplane:cp7" in listed
    assert "controlplane:cp1" not in listed
    estate.join(second, fresh, tokens["controlplane"])
    second.start()
    until(lambda: ("cp2", False) in members(fresh), what="it counts", timeout_s=30)


def test_what_is_damaged_foreign_or_in_the_way_is_refused(estate: Estate) -> None:
    """One line each, and nothing half done."""
    first, other = estate.machine("cp1"), estate.machine("cp5")
    estate.found(first)
    first.start()
    estate.until_leads(first)
    path = estate.folder / "home.backup"
    estate.orchctl("cluster", "backup", f"--trust={first.trust}", f"--out={path}")
    damaged = estate.folder / "damaged.backup"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert "it is damaged" in _restore(estate, damaged, other, 1, "--context=x")
    damaged.write_bytes(path.read_bytes()[:500])
    assert "it is damaged" in _restore(estate, damaged, other, 1, "--context=x")
    damaged.write_text("kind: Service\n")
    assert "no backup of a cluster" in _restore(estate, damaged, other, 1, "--context=x")
    assert not other.trust.exists()
    assert "is not empty" in _restore(estate, path, first, 1, "--context=x")

    _restore(estate, path, other, 0, "--context=x")
    other.start()  # beside the cluster itself: its own etcd is empty, and it is another store
    until(lambda: not (other.trust / "restoring.bin").exists(), what="it is restored", timeout_s=40)
    other.stop()
    (other.trust / "restoring.bin").write_bytes(b"")  # as if another backup was to be restored over it
    (other.trust / "restoring.bin").chmod(0o600)
    other.start()
    until(lambda: other.ended("instance") == 1, what="it refuses", timeout_s=40)
    assert "the store holds a cluster already" in other.log("instance")


def test_a_cluster_in_an_etcd_that_is_there_already(estate: Estate) -> None:
    """With TLS; nobody starts a member then, and a second control plane is let into the same store by its command."""
    owner, first, second = (estate.machine(name) for name in ("etcd", "cp1", "cp2"))
    estate.found(owner, "--context=owner")  # its certificates serve as those of an etcd of somebody else's
    owner.start_etcd()
    files = {"ca": owner.trust / "store-roots.pem", "cert": owner.trust / "store.pem", "key": owner.trust / "store.pem"}
    url = f"https://{owner.host}:2379"
    cert, key = machines_of_control.split(files["cert"], estate.folder)
    given = [f"--etcd={url}", f"--etcd-ca={files['ca']}"]
    given += [f"--etcd-cert={cert}", f"--etcd-key={key}"]
    missing = estate.orchctl(
        *("cluster", "init", "--name=cp1", f"--trust={first.trust}", "--server", first.server, given[0]), code=1
    )
    assert "--etcd-ca and --etcd-cert and --etcd-key must be given, too" in missing
    tokens = estate.found(first, *given)
    first.start_instance()
    estate.until_leads(first)
    assert not (first.trust / "etcd").exists()
    estate.join(second, first, tokens["controlplane"])
    second.start_instance()
    estate.until_leads(first, second)
    assert members(owner) == [("etcd", False)]
    path = estate.folder / "outside.backup"
    estate.orchctl("cluster", "backup", f"--trust={second.trust}", f"--out={path}")
    assert path.stat().st_size > 1000
    estate.orchctl("cluster", "member", "revoke", "controlplane:cp2")
    until(lambda: second.ended("instance") == 1, what="the one that is out ends", timeout_s=30)
