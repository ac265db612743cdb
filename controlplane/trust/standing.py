"""An instance's own standing in its cluster: its certificate, kept young, and everything that is built on it.

    folder ─► material ─► TLS of the server, the door, and of the way to the store
    store  ─► registry ─► membership, gate

The rule: what the first instance founded is written into the store once, in one commit, by whichever start succeeds in
it; afterwards every start compares that store and folder are of one cluster, and ends when they are not.
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog

from controlplane.api.gate import Gate
from controlplane.core import request_errors
from controlplane.core.machine import StoreCertificate
from controlplane.core.trust import believed, rotation, rules
from controlplane.core.trust.believed import Believed
from controlplane.store import api, errors, etcd_members
from controlplane.trust import storecertificates, storeplace
from controlplane.trust.audit import Audit
from controlplane.trust.auditbook import AuditBook
from controlplane.trust.door import Door
from controlplane.trust.doorbook import DoorBook
from controlplane.trust.membership import FOUNDING, STORE_IDENTITY, STORE_ROOTS, Membership
from controlplane.trust.registry import CLUSTER, INSTANCES, Registry, member_key
from protos import kinds
from protos.orch.v1 import objects_pb2
from protos.orch.v1 import trust_pb2 as pb
from telemetry import page
from trust import credentials, errands
from trust.core import certificate, identity, lifetime
from trust.core.identity import Role
from trust.folder import Folder, Material, NotTrusted, material

RETRY_S = 5.0
NEVER_MS = 1 << 62

_log = structlog.get_logger()


async def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(slots=True, kw_only=True)
class Standing:
    """What an instance has of its cluster's trust."""

    folder: Folder
    own: Material
    registry: Registry
    book: AuditBook
    membership: Membership
    gate: Gate
    door: Door
    on_roots: Callable[[str], None] = lambda _: None
    """Is told the digest of the roots that are believed, whenever they change."""

    on_instances: Callable[[Sequence[str]], None] = lambda _: None
    """Is told where the instances answer, whenever one comes, goes or moves."""
    address: str = ""
    """Where this one answers."""
    on_store_renewed: Callable[[], Awaitable[None]] = _nothing
    """Is told that what the store knows this instance by is another now."""
    renewing_store: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One renewal at a time: one that began before the root was another would be written last."""

    def credentials(self) -> grpc.ServerCredentials:
        """For the server; they follow when the certificate is renewed."""
        return credentials.server(lambda: self.own)

    def look_at_roots(self, changed: Iterable[str]) -> None:
        """Believes the roots that the cluster believes now, from the next handshake on. Listens to the registry."""
        if CLUSTER not in changed or self.registry.cluster != self.own.identity.cluster:
            return
        roots = rotation.bundle(self.registry.trust).encode()
        if roots != self.own.roots:
            self.own = material(self.own.key, self.own.chain, roots)
            try:
                self.folder.save(self.own)
            except NotTrusted as error:
                _log.error("the roots are believed, and could not be kept", why=str(error))
        self.on_roots(hashlib.sha256(roots).hexdigest())

    def reader_refusal(self, pem: str) -> str:
        """Why the holder of a certificate may not read metrics, of this instance or of a node; empty: they may."""
        return self.gate.refusal(pem, rules.METRICS)

    def store_certificates(self) -> Sequence[StoreCertificate]:
        """Those between this instance and the store, as they are on the disk now."""
        return storecertificates.of(self.folder, renewed=self.registry.trust.HasField("store_root"))

    def page_guard(self) -> page.Guard:
        """Who reads the metrics of this instance."""

        async def refusal(pem: str) -> str:
            return self.reader_refusal(pem)

        return page.Guard(folder=self.folder, current=lambda: self.own, refusal=refusal)

    def follow_roots(self, listener: Callable[[str], None]) -> None:
        """Tells a listener the digest of the roots now, if they are known, and at every change."""
        self.on_roots = listener
        self.look_at_roots([CLUSTER])

    def look_at_instances(self, changed: Iterable[str]) -> None:
        """Listens to the registry."""
        if any(name.startswith(INSTANCES) for name in changed):
            self.on_instances(self.registry.instances)

    def follow_instances(self, listener: Callable[[Sequence[str]], None]) -> None:
        """Tells a listener where the instances answer now, as far as it is known, and at every change."""
        self.on_instances = listener
        self.look_at_instances([INSTANCES])

    @contextlib.contextmanager
    def told_members(self, listener: Callable[[Believed], None]) -> Iterator[None]:
        """Tells a listener in the block whom nodes may believe: now, and whenever somebody has come or gone."""

        def tell(_changed: Iterable[str]) -> None:
            listener(believed.of(self.registry.members.values()))

        with self.registry.listening(tell):
            tell(())
            yield

    async def renew_store(self) -> None:
        """Other certificates between this instance, the member of etcd beside it, and the store.

        etcd reads its certificate at every handshake, and its key stays, so that the two files fit at any moment.
        Raises what the store raises, RequestError, NotMade or NotTrusted.
        """
        async with self.renewing_store:
            await self._renew_store()
        await self.on_store_renewed()
        _log.info("the certificates between this instance and the store are renewed")

    async def _renew_store(self) -> None:
        place = storeplace.load(self.folder)
        key, asked = await errands.request_async()
        chain = await self.membership.store_certificate(asked, self.own.identity.name)
        if place.member is not None:
            beside = storeplace.member_folder(self.folder)
            _, again = await errands.request_async(beside.read(storeplace.KEY).decode())
            made = await self.membership.store_certificate(again, place.member.name, place.member.hosts)
            beside.write(storeplace.CERTIFICATE, made.encode())
        self.folder.write(STORE_IDENTITY, (key + chain).encode())

    async def renew(self) -> None:
        """Another certificate, from ourselves, for a new key. What is open goes on; who comes next is shown it.

        Raises what the store raises, RequestError, NotMade or NotTrusted.
        """
        key, asked = await errands.request_async()
        used = self.own.facts.key_digest
        made = await self.membership.renew(self.own.identity, used, pb.RenewRequest(certificate_request=asked))
        own = material(key.encode(), made.certificate.encode(), made.roots.encode())
        self.folder.save(own)
        self.own = own
        self.door.renew()
        _log.info("the certificate is renewed", until_ms=own.facts.not_after_ms)


def store_credentials(folder: Folder) -> grpc.ChannelCredentials:
    """What the store knows this instance by. Raises NotTrusted."""
    key, chain = storeplace.identity(folder, STORE_IDENTITY)
    return grpc.ssl_channel_credentials(folder.read(STORE_ROOTS), key, chain)


def removed_with(value: kinds.StoredObject) -> Sequence[api.Change]:
    """A node that is removed is no member any more, from the same moment on."""
    if not isinstance(value, objects_pb2.Node):
        return ()
    return [api.Delete(key=member_key(identity.member(Role.NODE, value.meta.id)))]


@contextlib.asynccontextmanager
async def standing(
    folder: Folder,
    store: api.Store,
    *,
    audit: Path,
    now_ms: Callable[[], int],
    chance: random.Random,
    address: str = "",
    members: etcd_members.Members | None = None,
) -> AsyncIterator[Standing]:
    """Follows and renews inside the block. Raises NotTrusted when folder and store do not belong together.

    `members`: those of the store, where it is etcd.
    """
    own = folder.load(Role.CONTROLPLANE)
    registry = Registry(store)
    membership = Membership(registry, folder, now_ms, members)
    book = AuditBook(store, own.identity.name, now_ms)
    log = Audit(audit, now_ms, book.add)
    gate = Gate(registry, log)
    door = Door(membership, registry, folder, DoorBook(log), now_ms)
    mine = Standing(
        folder=folder,
        own=own,
        registry=registry,
        book=book,
        membership=membership,
        gate=gate,
        door=door,
        address=address,
    )
    keeper = Keeper(mine, now_ms, chance)
    with contextlib.ExitStack() as listening:
        for listener in (gate.look_again, mine.look_at_roots, mine.look_at_instances, keeper.wake):
            listening.enter_context(registry.listening(listener))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one.run()) for one in (registry, keeper, book, log)]
            yield mine
            for task in tasks:
                task.cancel()


class Keeper:
    """Founds what is to be founded, checks that it fits, and then keeps the certificate young, and exchanges roots."""

    def __init__(self, mine: Standing, now_ms: Callable[[], int], chance: random.Random) -> None:
        self._mine = mine
        self._now_ms = now_ms
        self._chance = chance
        self._woken = asyncio.Event()

    def wake(self, _changed: Iterable[str]) -> None:
        """Something has changed in the registry, which it listens to."""
        self._woken.set()

    async def run(self) -> None:
        """Runs until cancelled. Raises NotTrusted when folder and store do not belong together."""
        mine = self._mine
        await mine.registry.loaded.wait()
        await _found(mine)
        if mine.registry.trust.cluster != mine.own.identity.cluster:
            raise NotTrusted(
                f"{mine.folder.path} is of the cluster {mine.own.identity.cluster}, and the store holds "
                f"{mine.registry.trust.cluster}; give the right --trust, or the right --etcd"
            )
        moment, store_moment = self._moment(), self._store_moment()
        while True:
            _check_belongs(mine)
            try:
                await mine.membership.publish(mine.own.identity, mine.address)
                if self._now_ms() >= moment or self._is_behind():
                    await mine.renew()
                    moment = self._moment()
                if self._now_ms() >= store_moment:
                    await mine.renew_store()
                    store_moment = self._store_moment()
                await mine.membership.advance_rotation()
            except (errors.StoreError, request_errors.RequestError, errands.NotMade, NotTrusted) as error:
                _log.warning("not renewed yet", why=str(error), until_ms=mine.own.facts.not_after_ms)
                await asyncio.sleep(RETRY_S)
                continue
            await self._wait(min(moment, store_moment))

    async def _wait(self, moment: int) -> None:
        """Until something changes, or the moment has come; an hour at most, since a machine's clock may be set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(3600.0, max(0.0, (moment - self._now_ms()) / 1000))):
                await self._woken.wait()
        self._woken.clear()

    def _moment(self) -> int:
        facts = self._mine.own.facts
        return lifetime.renewal_moment(facts.not_before_ms, facts.not_after_ms, self._chance.random())

    def _store_moment(self) -> int:
        """When to renew what is between this instance and the store; never where that is somebody else's."""
        mine = self._mine
        if not mine.registry.trust.HasField("store_root"):
            return NEVER_MS
        _, chain = storeplace.identity(mine.folder, STORE_IDENTITY)
        facts = certificate.read(chain)
        return lifetime.renewal_moment(facts.not_before_ms, facts.not_after_ms, self._chance.random())

    def _is_behind(self) -> bool:
        """Whether our certificate is of another root than the one that issues now.

        The root is being exchanged; or it was while we were off; or we ended between the record of our renewal and its
        file, and the exchange ended meanwhile, since by the record we had what we needed.
        """
        trust, own = self._mine.registry.trust, self._mine.own
        member = self._mine.registry.members.get(own.identity.member)
        if member is None:
            return False
        roots = [key.root for key in member.keys if key.digest == own.facts.key_digest]
        return roots != [rotation.pin(trust.roots[0])]


def _check_belongs(mine: Standing) -> None:
    """That the instance was not taken out. It would lead, and nobody would believe it. Raises NotTrusted."""
    if mine.own.identity.member not in mine.registry.members:
        raise NotTrusted(
            f"{mine.own.identity} was taken out of this cluster; join it anew with an empty folder, or stop it"
        )


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
