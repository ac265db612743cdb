"""Writes everything that a cluster knows into one file: `python -m controlplane.trust.backup`, behind `orchctl cluster
backup`; and reads it.

    orch-backup 1 {"cluster": …, "made_at": …, "revision": …, "entries": …}    one line
    sealing key                                                                32 bytes
    key, value, key, value, …                                                  each after its length in 4 bytes
    SHA-256 of all that                                                        32 bytes

Two rules. It is of one revision of the store. And it is there completely or not at all, and nobody but its owner reads
it: with the sealing key it opens the cluster's roots.
"""

import argparse
import asyncio
import datetime as dt
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.store import api, errors
from controlplane.store.etcd import EtcdStore
from controlplane.trust import storeplace
from controlplane.trust.membership import SEALING_KEY
from controlplane.trust.registry import CLUSTER
from controlplane.trust.standing import store_credentials
from protos.orch.v1 import trust_pb2 as pb
from trust.folder import Folder, NotTrusted

MAGIC = b"orch-backup 1 "
ROOT = "/orch"
PASSING = ("/orch-election/", "/orch-instances/", "/orch-receipts/", "/orch-restored")
"""What belongs to those who run now."""
DIGEST_BYTES, KEY_BYTES, LENGTH_BYTES = 32, 32, 4
MAX_HEAD_BYTES = 4096


class BadBackup(Exception):  # noqa: N818 - what it is
    """The file is no whole backup; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """`made_at_ms` since 1970; `entries`: what the store held at `revision`."""

    cluster: str
    made_at_ms: int
    revision: int
    sealing_key: bytes
    entries: Mapping[str, bytes]

    def pack(self) -> bytes:
        """As the file has it."""
        said = {"cluster": self.cluster, "made_at": self.made_at, "made_at_ms": self.made_at_ms}
        head = json.dumps({**said, "revision": self.revision, "entries": len(self.entries)})
        parts = [MAGIC, head.encode(), b"\n", self.sealing_key]
        for key, value in self.entries.items():
            for part in (key.encode(), value):
                parts += [len(part).to_bytes(LENGTH_BYTES, "big"), part]
        whole = b"".join(parts)
        return whole + hashlib.sha256(whole).digest()

    @property
    def made_at(self) -> str:
        """For people: `2026-11-26T09:30:00+00:00`."""
        return dt.datetime.fromtimestamp(self.made_at_ms / 1000, dt.UTC).isoformat(timespec="seconds")


def unpack(data: bytes) -> Backup:
    """What a file holds. Raises BadBackup."""
    if not data.startswith(MAGIC):
        raise BadBackup("it is no backup of a cluster, or one of another release")
    whole, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.sha256(whole).digest() != digest:
        raise BadBackup("it is damaged: its content does not fit its digest")
    line, _, rest = whole[len(MAGIC) :].partition(b"\n")
    try:
        said = json.loads(line)
        parts = list(_parts(rest[KEY_BYTES:]))
        entries = {key.decode(): value for key, value in zip(parts[::2], parts[1::2], strict=True)}
        if len(entries) != said["entries"] or CLUSTER not in entries:
            raise BadBackup("it is damaged: it does not hold what it says")
        return Backup(
            cluster=said["cluster"],
            made_at_ms=said["made_at_ms"],
            revision=said["revision"],
            sealing_key=rest[:KEY_BYTES],
            entries=entries,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadBackup(f"it is damaged: {error}") from error


def _parts(data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + LENGTH_BYTES], "big")
        place += LENGTH_BYTES + length
        if place > len(data):
            raise BadBackup("it is damaged: it ends in the middle")
        yield data[place - length : place]


def read(path: Path) -> Backup:
    """A file's content. Raises BadBackup."""
    try:
        return unpack(path.read_bytes())
    except OSError as error:
        raise BadBackup(f"it cannot be read: {error.strerror}") from error


async def take(folder: Folder, store: api.Store, now_ms: int) -> Backup:
    """What the store holds now. Raises what the store raises, and NotTrusted."""
    listing = await store.list(ROOT)
    entries = {one.key: one.value for one in listing.entries if not one.key.startswith(PASSING)}
    if CLUSTER not in entries:
        raise NotTrusted("the store holds no cluster")
    cluster = pb.TrustRecord.FromString(entries[CLUSTER]).cluster
    return Backup(
        cluster=cluster,
        made_at_ms=now_ms,
        revision=listing.revision,
        sealing_key=folder.read(SEALING_KEY),
        entries=entries,
    )


def write(path: Path, made: Backup) -> None:
    """Puts it there, on disk, readable by its owner only. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is a descriptor
            file.write(made.pack())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


async def _take(folder: Folder) -> Backup:
    store = EtcdStore(storeplace.load(folder).endpoints, credentials=store_credentials(folder))
    try:
        return await take(folder, store, time.time_ns() // 1_000_000)
    finally:
        await store.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why there is no backup."""
    parser = argparse.ArgumentParser(prog="orchctl cluster backup", description="Writes a cluster into a file.")
    parser.add_argument("--trust", required=True, type=Path, help="the folder of a control plane")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        if options.out.exists():
            raise NotTrusted(f"{options.out} is there already; give a name that is free")  # noqa: TRY301 - one way out
        made = asyncio.run(_take(Folder(options.trust)))
        write(options.out, made)
    except (NotTrusted, errors.StoreError) as error:
        sys.stderr.write(f"orchctl: no backup was made: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"orchctl: no backup was made: cannot write {options.out}: {error.strerror}\n")
        return 1
    sys.stdout.write(
        f"{options.out}: cluster {made.cluster} as of revision {made.revision}, {len(made.entries)} entries\n"
        "it holds the key to the cluster's roots: whoever has it is master of the cluster\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
