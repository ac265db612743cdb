"""Backups: whole or refused, and written into a store once."""

from pathlib import Path

import pytest

from controlplane.store import api, errors, memory
from controlplane.trust import backup, restoring
from controlplane.trust.membership import SEALING_KEY
from controlplane.trust.registry import CLUSTER
from protos.orch.v1 import trust_pb2 as pb
from tests.support.aio import bounded
from trust.folder import Folder, NotTrusted

TRUST = pb.TrustRecord(cluster="c1").SerializeToString()
ENTRIES = {CLUSTER: TRUST, "/orch/service/default/web": b"web", "/orch/task/default/web-1": b"\x00\xff"}


def made() -> backup.Backup:
    return backup.Backup(cluster="c1", made_at_ms=1_700_000_000_000, revision=7, sealing_key=b"s" * 32, entries=ENTRIES)


def test_what_was_packed_is_unpacked() -> None:
    """Every byte of it."""
    assert backup.unpack(made().pack()) == made()


@pytest.mark.parametrize("place", [0, 20, 200, -40, -1])
def test_a_byte_that_differs_is_found(place: int) -> None:
    """Wherever it is."""
    data = bytearray(made().pack())
    data[place] ^= 1
    with pytest.raises(backup.BadBackup):
        backup.unpack(bytes(data))


@pytest.mark.parametrize("length", [0, 10, 100, -1, -33])
def test_a_part_of_it_is_refused(length: int) -> None:
    """A copy that was broken off."""
    with pytest.raises(backup.BadBackup):
        backup.unpack(made().pack()[:length])


def test_nobody_else_reads_it_and_nothing_is_overwritten(tmp_path: Path) -> None:
    """It opens the cluster's roots."""
    path = tmp_path / "home.backup"
    backup.write(path, made())
    assert path.stat().st_mode & 0o777 == 0o600
    assert backup.read(path) == made()
    with pytest.raises(FileExistsError):
        backup.write(path, made())


@bounded(10)
async def test_it_holds_what_the_store_holds_but_for_who_runs_now(tmp_path: Path) -> None:
    """Leader and instances are whoever is there afterwards."""
    folder, store = Folder(tmp_path), memory.MemoryStore()
    folder.write(SEALING_KEY, b"s" * 32)
    passing = {"/orch-election/leader": b"cp1", "/orch-instances/cp1": b"10.0.0.1:7400"}
    await store.commit([api.Put(key=key, value=value) for key, value in {**ENTRIES, **passing}.items()])
    taken = await backup.take(folder, store, 1)
    assert (dict(taken.entries), taken.cluster, taken.sealing_key) == (ENTRIES, "c1", b"s" * 32)
    await store.close()


class Breaking(memory.MemoryStore):
    """Fails at the commit of that number."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    async def commit(self, changes: object, *, fence: api.Fence | None = None) -> int:
        self.left -= 1
        if self.left == 0:
            raise errors.Unavailable("the power is off")
        return await super().commit(changes, fence=fence)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [1, 2, 3])
@bounded(10)
async def test_a_restoration_that_breaks_off_is_gone_on_with(tmp_path: Path, at: int) -> None:
    """At any commit; then it is done once, and the file is gone."""
    folder, store = Folder(tmp_path), Breaking(at)
    restoring.leave(folder, ENTRIES)
    with pytest.raises(errors.Unavailable):
        await restoring.finish(folder, store)
    await restoring.finish(folder, store)
    assert not (tmp_path / restoring.FILE).exists()
    found = {one.key: one.value for one in (await store.list("/orch")).entries if one.key != restoring.MARK}
    assert found == ENTRIES
    await store.commit([api.Delete(key="/orch/service/default/web")])
    await restoring.finish(folder, store)
    assert "/orch/service/default/web" not in {one.key for one in (await store.list("/orch")).entries}
    await store.close()


@bounded(10)
async def test_nothing_is_mixed_with_what_a_store_holds(tmp_path: Path) -> None:
    """Neither another cluster, nor the same one as it went on, nor another backup that was begun."""
    folder, store = Folder(tmp_path), memory.MemoryStore()
    await store.commit([api.Put(key=CLUSTER, value=TRUST)])
    restoring.leave(folder, ENTRIES)
    with pytest.raises(NotTrusted, match="holds a cluster already"):
        await restoring.finish(folder, store)
    assert (tmp_path / restoring.FILE).exists()
    other = memory.MemoryStore()
    await other.commit([api.Put(key=restoring.MARK, value=b"begun another")])
    with pytest.raises(NotTrusted, match="holds a cluster already"):
        await restoring.finish(folder, other)
    await store.close()
    await other.close()
