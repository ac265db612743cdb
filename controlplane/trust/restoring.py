"""Writes what a restored cluster is to hold into its store, when its first instance starts.

Two rules. Only into a store with nothing of a cluster in it: what is there is never mixed with what was. And it may end
in the middle at any moment: a key says which backup is being written, the next start goes on with the same one, and
nobody is served before all of it is there.
"""

import hashlib
from collections.abc import Mapping

import structlog

from controlplane.store import api, writer
from controlplane.trust import storeplace
from protos.orch.v1 import trust_pb2 as pb
from trust.folder import Folder, NotTrusted

FILE = "restoring.bin"
MARK = "/orch-restored"
ROOT = "/orch"
PASSING = ("/orch-election/", "/orch-instances/", "/orch-receipts/")
BEGUN, DONE = "begun ", "done "

_log = structlog.get_logger()


def leave(folder: Folder, entries: Mapping[str, bytes]) -> None:
    """Leaves it for the instance of this folder. Raises NotTrusted."""
    kept = [pb.RestoredEntry(key=key, value=value) for key, value in sorted(entries.items())]
    folder.write(FILE, pb.Restored(entries=kept).SerializeToString())


async def finish(folder: Folder, store: api.Store) -> None:
    """Writes what was left, if anything was. Raises NotTrusted when the store is not empty, and what a store raises."""
    path = folder.path / FILE
    if not path.exists():
        return
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    mark = await _mark(folder, store, digest)
    if mark != DONE + digest:
        entries = pb.Restored.FromString(content).entries
        _log.info("a backup is written into the store", entries=len(entries))
        await writer.write(store, ([api.Put(key=one.key, value=one.value)] for one in entries))
        await store.commit([api.Put(key=MARK, value=(DONE + digest).encode())])
    path.unlink()
    _log.info("the cluster is restored")


async def _mark(folder: Folder, store: api.Store, digest: str) -> str:
    """How far this very backup has come in the store; makes the mark where there is nothing."""
    listing = await store.list(ROOT)
    there = {one.key: one.value for one in listing.entries if not one.key.startswith(PASSING)}
    mark = there.get(MARK, b"").decode()
    if mark in {BEGUN + digest, DONE + digest}:
        return mark
    if there:
        raise NotTrusted(
            f"the store holds a cluster already ({len(there)} entries), and a backup is restored into an empty one; "
            + _remedy(folder)
        )
    await store.commit([api.Put(key=MARK, value=(BEGUN + digest).encode(), expect=0)])
    return BEGUN + digest


def _remedy(folder: Folder) -> str:
    """For whoever finds the store full. One of somebody else's is not theirs to empty."""
    if storeplace.known(folder) and storeplace.load(folder).member is None:
        return f"nothing was written; remove {folder.path}, and restore with --etcd of an empty etcd"
    return "give orch-etcd an empty --data, or remove the instance's folder to leave the store as it is"
