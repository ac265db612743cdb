"""What the store keeps of the cluster's members, followed as it changes.

Two rules. It is kept beside the objects, below a prefix of its own: no list, watch or dump of objects shows it. And
what is written names the version that it was made from, so that two instances that let somebody in with the last use
of a token do not both succeed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError

from controlplane.core import request_errors
from controlplane.store import api, errors
from protos.orch.v1 import trust_pb2 as pb
from trust.core.identity import Role

PREFIX = "/orch-trust/"
CLUSTER = PREFIX + "cluster"
MEMBERS = PREFIX + "member/"
INSTANCES = f"{Role.CONTROLPLANE}:"
"""How the names of instances begin."""
RETRY_S = 0.5
CAUGHT_UP_TIMEOUT_S = 5.0

_log = structlog.get_logger()

M = TypeVar("M", pb.TrustRecord, pb.MemberRecord)

Listener = Callable[[Iterable[str]], None]
"""Is told the names of the members whose record has changed; `CLUSTER` stands for the cluster's own."""


class NotFounded(request_errors.NotReachable):
    """The store holds no cluster's trust, or not yet."""


def member_key(name: str) -> str:
    """Where a member's record is: `node:k3f…`."""
    return MEMBERS + name


class Registry:
    """Run `run`; everything else works once `loaded` is set."""

    def __init__(self, store: api.Store) -> None:
        self.loaded = asyncio.Event()
        self._store = store
        self._versions: dict[str, int] = {}
        self._members: dict[str, pb.MemberRecord] = {}
        self._trust = pb.TrustRecord()
        self._revision = 0
        self._moved = asyncio.Event()
        self._listeners: dict[Listener, None] = {}

    @property
    def trust(self) -> pb.TrustRecord:
        """The cluster's record, never to be changed. Raises NotReachable, and NotFounded."""
        if not self.loaded.is_set():
            raise request_errors.NotReachable(
                "the store has not answered since this instance started, so that nobody is known here",
                hint="running containers are not affected; try again once the store answers",
            )
        if not self._trust.cluster:
            text = f"the store holds no cluster: {CLUSTER} is not there"
            raise NotFounded(f"{text}; `orchctl cluster init` founds one", hint="is it the right store (--etcd)?")
        return self._trust

    @property
    def cluster(self) -> str:
        """The cluster's id; empty while none is known."""
        return self._trust.cluster

    @property
    def members(self) -> Mapping[str, pb.MemberRecord]:
        """The records by name, never to be changed."""
        return self._members

    @property
    def instances(self) -> Sequence[str]:
        """Where the instances of the control plane answer, by their names; also those that are down."""
        named = sorted(name for name in self._members if name.startswith(INSTANCES))
        return [address for name in named if (address := self._members[name].address)]

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tells of every change in the block."""
        self._listeners[listener] = None
        try:
            yield
        finally:
            del self._listeners[listener]

    async def commit(
        self,
        *,
        trust: pb.TrustRecord | None = None,
        members: Sequence[pb.MemberRecord] = (),
        fence: api.Fence | None = None,
    ) -> None:
        """Writes records that were made from those that are known here now, all or none. Raises Conflict, and Deposed
        where a leader writes behind its fence.

        Now: nothing is waited for between reading them and this, else what has changed meanwhile would be undone.
        """
        changes: list[api.Change] = [self._put(member_key(one.name), one.SerializeToString()) for one in members]
        if trust is not None and trust != self._trust:
            changes.append(self._put(CLUSTER, trust.SerializeToString(deterministic=True)))
        if changes:
            await self.wait_for(await self._store.commit(changes, fence=fence))

    async def found(self, founding: pb.Founding) -> None:
        """Writes the first records. Raises Conflict when there are some already, whatever is known here."""
        records = {CLUSTER: founding.trust, **{member_key(one.name): one for one in founding.members}}
        changes = [
            api.Put(key=key, value=one.SerializeToString(deterministic=True), expect=0) for key, one in records.items()
        ]
        await self.wait_for(await self._store.commit(changes))

    async def remove(self, name: str, stays: pb.MemberRecord | None = None) -> None:
        """Takes a member out. One that is not there is no error.

        `stays`: who has to be there in the moment, as known here. Raises Conflict when they are not.
        """
        beside = [] if stays is None else [self._put(member_key(stays.name), stays.SerializeToString())]
        await self._store.commit([api.Delete(key=member_key(name)), *beside])
        await self.catch_up()

    async def catch_up(self) -> None:
        """Knows everything that the store holds now: after a conflict."""
        # Not by waiting for its revision: what is written elsewhere raises that, and is not told of here.
        listing = await self._store.list(PREFIX)
        if listing.revision > self._revision:
            self._take_all(listing)

    async def wait_for(self, revision: int) -> None:
        """Waits until a revision is known here. Raises Unavailable."""
        try:
            async with asyncio.timeout(CAUGHT_UP_TIMEOUT_S):
                while self._revision < revision:
                    await self._moved.wait()
        except TimeoutError:
            raise errors.Unavailable(f"the members are known as of revision {self._revision}, not {revision}") from None

    async def run(self) -> None:
        """Follows the store until cancelled; raises only what is Fatal."""
        while True:
            try:
                await self._list()
                await self._follow()
            except (errors.Compacted, errors.Temporary) as error:
                _log.warning("the members cannot be followed; looking again", why=str(error))
                await asyncio.sleep(RETRY_S)

    def _put(self, key: str, value: bytes) -> api.Put:
        return api.Put(key=key, value=value, expect=self._versions.get(key, 0))

    async def _list(self) -> None:
        listing = await self._store.list(PREFIX)
        if listing.revision < self._revision:  # etcd was restored, and equal versions may differ
            self._versions = dict.fromkeys(self._versions, 0)
            self._revision = 0
        self._take_all(listing)

    def _take_all(self, listing: api.Listing) -> None:
        gone = self._versions.keys() - {entry.key for entry in listing.entries}
        self.loaded.set()  # before listeners look
        entries = ((one.key, one.value, one.version) for one in listing.entries)
        self._take([*((key, None, 0) for key in gone), *entries], listing.revision)

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._store.watch(PREFIX, self._revision)) as batches:
            async for batch in batches:
                if batch.connected:
                    # Those up to the known revision were in a list that `catch_up` has taken in.
                    news = [one for one in batch.events if one.version > self._revision]
                    self._take([(one.key, one.value, one.version) for one in news], batch.revision)

    def _take(self, entries: Iterable[tuple[str, bytes | None, int]], revision: int) -> None:
        changed = [name for key, value, version in entries if (name := self._take_one(key, value, version)) is not None]
        self._revision = max(revision, self._revision)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        if changed:
            for listener in list(self._listeners):
                listener(changed)

    def _take_one(self, key: str, value: bytes | None, version: int) -> str | None:
        """The name of what it was of, as listeners are told it, if it has changed."""
        if self._versions.get(key) == version and value is not None:
            return None
        if value is None:
            self._versions.pop(key, None)
        else:
            self._versions[key] = version
        if key == CLUSTER:
            self._trust = _decoded(pb.TrustRecord(), key, value)
            return CLUSTER
        name = key.removeprefix(MEMBERS)
        if value is None:
            self._members.pop(name, None)
        else:
            self._members[name] = _decoded(pb.MemberRecord(), key, value)
        return name


def _decoded(record: M, key: str, value: bytes | None) -> M:
    try:
        record.ParseFromString(value or b"")
    except DecodeError as error:
        raise errors.Fatal(f"what stands at {key} is no record of a cluster's trust: {error}") from error
    return record
