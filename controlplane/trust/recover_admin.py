"""Lets an admin in where none is left: `python -m controlplane.trust.recover_admin`, behind `cluster recover-admin`.

It writes a token into the store itself, as the instance whose folder this is: whoever reads that folder is master of
the cluster in any case. No instance has to run; one that does knows the token at once.

Two rules. The token and the entry in the audit log are one commit. And a person has one token of this kind: another try
makes the one before worthless.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.core.trust import rotation
from controlplane.store import api, errors
from controlplane.store.etcd import EtcdStore
from controlplane.trust import auditbook, storeplace, tokenrecords
from controlplane.trust.registry import CLUSTER, PREFIX, member_key
from controlplane.trust.standing import store_credentials
from protos.orch.v1 import trust_pb2 as pb
from trust.core import identity
from trust.core.identity import Identity, Role
from trust.folder import Folder, NotTrusted

ATTEMPTS = 5
LIFETIME_MS = 3_600_000
MADE_BY = "cluster recover-admin"
CALL = "RecoverAdmin"
API_PORT, DOOR_PORT = "7400", "7401"

Held = Mapping[str, api.Entry]
"""What the store holds of the cluster's trust and its members, by key."""


class NotRecovered(Exception):  # noqa: N818 - what happened
    """One line; `hint` is the remedy. Nobody has got a token."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The token's text, and where the instance answers; empty where it has never told."""

    token: str
    address: str


async def recover(folder: Folder, store: api.Store, person: str, now_ms: int) -> Recovered:
    """Makes a token for an admin. `folder`: an instance's. Raises NotRecovered, NotTrusted, and what a store raises."""
    if not identity.NAME.fullmatch(person):
        raise NotRecovered(f"{person!r:.70} is no name for a person", hint=f"a name has {identity.NAME_HINT}")
    own = folder.load(Role.CONTROLPLANE).identity
    request = pb.CreateTokenRequest(role=Role.ADMIN, person=person, lifetime=LIFETIME_MS, uses=1)
    for _ in range(ATTEMPTS):
        held = {one.key: one for one in (await store.list(PREFIX)).entries}
        trust = _trust(held, own, folder)
        pin = rotation.pin(trust.roots[0])
        made, record = tokenrecords.new(Role.ADMIN, pin, request, actor=MADE_BY, now_ms=now_ms)
        kept = [one for one in trust.tokens if (one.created_by, one.person) != (MADE_BY, person)]
        del trust.tokens[:]
        trust.tokens.extend([*kept, record])
        content = trust.SerializeToString(deterministic=True)
        told = _told(own, record)
        with contextlib.suppress(errors.Conflict):
            await store.commit(
                [
                    api.Put(key=CLUSTER, value=content, expect=held[CLUSTER].version),
                    api.Put(key=auditbook.key_of(told, record.id), value=told.SerializeToString()),
                ]
            )
            return Recovered(token=str(made), address=_address(held, own))
    raise NotRecovered("the cluster's tokens changed faster than this one was made", hint="try again")


def _trust(held: Held, own: Identity, folder: Folder) -> pb.TrustRecord:
    """The cluster's record, to be changed. Raises NotRecovered."""
    if CLUSTER not in held:
        text = "the store holds no cluster yet: the first control plane writes it there when it starts"
        raise NotRecovered(text, hint="start it: `systemctl start orch-controlplane`")
    trust = pb.TrustRecord.FromString(held[CLUSTER].value)
    if trust.cluster != own.cluster:
        text = f"{folder.path} is of the cluster {own.cluster}, and the store holds {trust.cluster}"
        raise NotRecovered(text, hint="give the right --trust")
    if member_key(own.member) not in held:
        text = f"{own} was taken out of this cluster"
        raise NotRecovered(text, hint="do it on the machine of another control plane")
    return trust


def _told(own: Identity, record: pb.TokenRecord) -> pb.AuditRecord:
    """For the audit log. Who it was, nobody knows but that they have this instance's folder."""
    objects = [f"{record.role} {record.person}", f"token {record.id}"]
    return pb.AuditRecord(
        at=record.created_at, who=own.name, role=own.role, call=CALL, objects=objects, instance=own.name
    )


def _address(held: Held, own: Identity) -> str:
    return pb.MemberRecord.FromString(held[member_key(own.member)].value).address


async def _recover(folder: Folder, person: str) -> Recovered:
    try:
        folder.load(Role.CONTROLPLANE)  # before its other files are missed: it may be another program's
        store = EtcdStore(storeplace.load(folder).endpoints, credentials=store_credentials(folder))
    except NotTrusted as error:
        raise NotRecovered(str(error), hint=_folder_hint()) from error
    try:
        return await recover(folder, store, person, time.time_ns() // 1_000_000)
    except NotTrusted as error:
        raise NotRecovered(str(error), hint=_folder_hint()) from error
    except errors.StoreError as error:
        hint = "most members of the store have to run: `systemctl start orch-etcd`, `journalctl -u orch-etcd`"
        raise NotRecovered(f"the store does not answer: {error}", hint=hint) from error
    finally:
        await store.close()


def _folder_hint() -> str:
    if os.geteuid() != 0:
        return "do it as root (sudo), on the machine of a control plane"
    return "do it on the machine of a control plane; --trust names the folder of one that you started yourself"


def _next(person: str, made: Recovered) -> str:
    host, _, port = made.address.rpartition(":")
    server = f" --server {made.address}" if made.address and port != API_PORT else ""
    return (
        f"{person} may log in as an admin, once and within an hour, by\n"
        f"  echo {made.token} | orchctl login --door {host or 'HOST'}:{DOOR_PORT}{server} --token -\n"
        "while a control plane runs; the audit log tells of it\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why nobody was let in."""
    parser = argparse.ArgumentParser(prog="orchctl cluster recover-admin", description="Lets an admin in again.")
    parser.add_argument("--trust", required=True, type=Path, help="the folder of a control plane")
    parser.add_argument("person", help="who is to be an admin")
    options = parser.parse_args(arguments)
    try:
        made = asyncio.run(_recover(Folder(options.trust.absolute()), options.person))
    except NotRecovered as error:
        sys.stderr.write(f"orchctl: there is no token for {options.person!r:.70}: {error}\nhint: {error.hint}\n")
        return 1
    sys.stdout.write(_next(options.person, made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
