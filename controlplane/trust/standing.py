"""An instance's own standing in its cluster: its certificate, kept young, and everything that is built on it.

    folder ─► material ─► TLS of the server, the door, and of the way to the store
    store  ─► registry ─► membership, gate

The rule: what the first instance founded is written into the store once, in one commit, by whichever start succeeds in
it; afterwards every start compares that store and folder are of one cluster, and ends when they are not.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from controlplane.api.gate import Gate
from controlplane.core import request_errors
from controlplane.store import api, errors
from controlplane.trust.audit import Audit
from controlplane.trust.door import Door
from controlplane.trust.membership import STORE_IDENTITY, STORE_ROOTS, Membership
from controlplane.trust.registry import Registry, member_key
from protos import kinds
from protos.orch.v1 import objects_pb2
from protos.orch.v1 import trust_pb2 as pb
from trust import credentials, errands
from trust.core import identity, lifetime
from trust.core.identity import Role
from trust.folder import Folder, Material, NotTrusted, material

FOUNDING = "founding.bin"

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Standing:
    """What an instance has of its cluster's trust."""

    folder: Folder
    own: Material
    registry: Registry
    membership: Membership
    gate: Gate
    door: Door

    def credentials(self) -> grpc.ServerCredentials:
        """For the server; they follow when the certificate is renewed."""
        return credentials.server(lambda: self.own)

    async def renew(self) -> None:
        """Another certificate, from ourselves, for a new key. What is open goes on; who comes next is shown it.

        Raises what the store raises, RequestError, NotMade or NotTrusted.
        """
        key, asked = await errands.request_async()
        made = await self.membership.renew(self.own.identity, pb.RenewRequest(certificate_request=asked))
        own = material(key.encode(), made.certificate.encode(), made.roots.encode())
        self.folder.save(own)
        self.own = own
        self.door.renew()
        _log.info("the certificate is renewed", until_ms=own.facts.not_after_ms)


def store_credentials(folder: Folder) -> grpc.ChannelCredentials:
    """What the store knows this instance by. Raises NotTrusted."""
    key, end, chain = folder.read(STORE_IDENTITY).partition(b"-----END PRIVATE KEY-----\n")
    return grpc.ssl_channel_credentials(folder.read(STORE_ROOTS), key + end, chain)


def removed_with(value: kinds.StoredObject) -> Sequence[api.Change]:
    """A node that is removed is no member any more, from the same moment on."""
    if not isinstance(value, objects_pb2.Node):
        return ()
    return [api.Delete(key=member_key(identity.member(Role.NODE, value.meta.id)))]


@contextlib.asynccontextmanager
async def standing(
    folder: Folder, store: api.Store, *, audit: Path, now_ms: Callable[[], int], chance: random.Random
) -> AsyncIterator[Standing]:
    """Follows and renews inside the block. Raises NotTrusted when folder and store do not belong together."""
    own = folder.load(Role.CONTROLPLANE)
    registry = Registry(store)
    membership = Membership(registry, folder, now_ms)
    gate, door = Gate(registry, Audit(audit)), Door(membership, registry, folder, now_ms)
    mine = Standing(folder=folder, own=own, registry=registry, membership=membership, gate=gate, door=door)
    with registry.listening(gate.look_again):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(registry.run()), group.create_task(_keep(mine, now_ms, chance))]
            yield mine
            for task in tasks:
                task.cancel()


async def _keep(mine: Standing, now_ms: Callable[[], int], chance: random.Random) -> None:
    """Founds what is to be founded, checks that it fits, and then renews the certificate for ever."""
    await mine.registry.loaded.wait()
    await _found(mine)
    who = mine.own.identity
    if mine.registry.trust.cluster != who.cluster:
        raise NotTrusted(
            f"{mine.folder.path} is of the cluster {who.cluster}, and the store holds {mine.registry.trust.cluster}; "
            "give the right --trust, or the right --etcd"
        )
    while True:
        facts = mine.own.facts
        moment = lifetime.renewal_moment(facts.not_before_ms, facts.not_after_ms, chance.random())
        # A timer cannot run for months, and a machine's clock may be set.
        while now_ms() < moment:  # noqa: ASYNC110 - nothing announces a moment
            await asyncio.sleep(min(3600.0, (moment - now_ms()) / 1000))
        try:
            await mine.renew()
        except (errors.StoreError, request_errors.RequestError, errands.NotMade, NotTrusted) as error:
            _log.warning("the certificate is not renewed yet", why=str(error), until_ms=facts.not_after_ms)
            await asyncio.sleep(lifetime.RETRY_MS / 1000)


async def _found(mine: Standing) -> None:
    """Writes the first records, if this instance has them and the store has none."""
    path = mine.folder.path / FOUNDING
    if not path.exists():
        return
    founding = pb.Founding.FromString(mine.folder.read(FOUNDING))
    try:
        await mine.registry.found(founding)
        _log.info("a cluster is founded", cluster=founding.trust.cluster)
    except errors.Conflict:
        await mine.registry.catch_up()
    if mine.registry.trust.cluster == founding.trust.cluster:
        path.unlink()
