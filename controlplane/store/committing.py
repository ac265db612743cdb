"""Commits to etcd that happen once, however often they are sent.

Every commit writes one key more, its receipt, and is carried out only while the receipt is as it was before. So of all
tries of one commit at most one is carried out, however late each arrives and whatever others have done to its keys
meanwhile; and a try that is refused because an earlier one was carried out finds the receipt of that one.

    /orch-receipts/<writer>/<number>    one for each commit of a writer that is under way at once, used again and again

The naive design repeats what names the versions that it replaces, and looks at the keys when it is refused. But others
may have written over them since, and what creates a key is carried out twice when somebody removes it in between.
"""

import contextlib
import itertools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from aetcd import rpc

from controlplane.store import api, endpoints, errors, txn

PREFIX = "/orch-receipts/"
LEARNING_TRIES = 5
"""Of a commit that finds its receipt written by somebody who was thought to be gone."""


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where receipts are written. `version`: of the one that is there; None: not known, a try may be under way."""

    key: str
    version: int | None = None


class Committer:
    """Commits over the links to etcd. `writer`: a name that no other process has that runs; kept over restarts, so that
    those that are used again do not become ever more.
    """

    def __init__(self, members: endpoints.Endpoints, writer: str) -> None:
        self._members = members
        self._writer = writer
        self._shared = f"another process writes receipts as {writer!r}; give each a name of its own"
        self._run = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._places = 0
        self._free: list[_Place] = []

    async def commit(self, changes: Sequence[api.Change], fence: api.Fence | None) -> int:
        """As `Store.commit`. Raises `Unavailable`, which is ambiguous when a try may be carried out yet."""
        what = f"commit {len(changes)} changes" + (f" from {changes[0].key} on" if changes else "")
        if not changes:
            response, _ = await self._send(what, (), txn.build((), fence))
            if not response.succeeded:
                raise txn.refusal(response, (), fence)
            return int(response.header.revision)
        with self._place() as place:
            for _ in range(LEARNING_TRIES):
                done = await self._try(what, changes, fence, place)
                if done is not None:
                    return done
        raise errors.Unavailable(f"etcd is asked in vain (to {what}): {self._shared}")

    async def _try(
        self, what: str, changes: Sequence[api.Change], fence: api.Fence | None, place: _Place
    ) -> int | None:
        """The revision that carried it out; None: it was not, and never will be, since the receipt was another one."""
        before = await self._version(what, place)
        receipt = txn.Receipt(key=place.key, before=before, value=self._value())
        response, in_doubt = await self._send(what, changes, txn.build(changes, fence, receipt))
        if response.succeeded:
            place.version = int(response.header.revision)
            return place.version
        found = txn.receipt_in(response)
        if found.value == receipt.value:
            place.version = int(found.mod_revision)
            return place.version
        if found.mod_revision != before:
            if in_doubt and not found.value.startswith(self._run.encode()):
                raise errors.Unavailable(f"etcd may have done it (to {what}): {self._shared}", ambiguous=True)
            place.version = int(found.mod_revision)
            return None
        place.version = before
        if in_doubt and (done := await self._overtake(what, place, receipt)) is not None:
            return done
        raise txn.refusal(response, changes, fence)

    async def _overtake(self, what: str, place: _Place, receipt: txn.Receipt) -> int | None:
        """Writes another receipt, so that no try of the one that was refused is carried out later: that would be when
        what stood in its way is gone. The revision of the try that was faster nevertheless.
        """
        place.version = None
        other = txn.Receipt(key=receipt.key, before=receipt.before, value=self._value())
        try:
            response, _ = await self._send(what, (), txn.build((), None, other))
        except errors.Unavailable as error:
            raise errors.Unavailable(str(error), ambiguous=True) from error
        found = None if response.succeeded else txn.receipt_in(response)
        place.version = int(response.header.revision if found is None else found.mod_revision)
        return place.version if found is not None and found.value == receipt.value else None

    async def _send(self, what: str, changes: Sequence[api.Change], request: Any) -> tuple[Any, bool]:
        """etcd's answer, and whether an earlier try may have been carried out, too."""
        try:
            return await self._members.write(what, lambda link, timeout_s: link.kv.Txn(request, timeout=timeout_s))
        except endpoints.Refused as error:
            leases = [change.lease for change in changes if isinstance(change, api.Put) and change.lease is not None]
            if error.code is grpc.StatusCode.NOT_FOUND and leases:
                raise errors.LeaseExpired(leases[0]) from error
            raise

    async def _version(self, what: str, place: _Place) -> int:
        """Of the receipt that is there. Not known from now on: what follows may change it."""
        version, place.version = place.version, None
        if version is not None:
            return version
        request = rpc.RangeRequest(key=place.key.encode(), keys_only=True)
        response = await self._members.range(what, request, hasty=True)
        return int(response.kvs[0].mod_revision) if response.kvs else 0

    def _value(self) -> bytes:
        """One that no other receipt has."""
        return f"{self._run}-{next(self._numbers)}".encode()

    @contextlib.contextmanager
    def _place(self) -> Iterator[_Place]:
        """One that no other commit has at the same time."""
        if not self._free:
            self._places += 1
            self._free.append(_Place(key=f"{PREFIX}{self._writer}/{self._places}"))
        place = self._free.pop()
        try:
            yield place
        finally:
            self._free.append(place)
