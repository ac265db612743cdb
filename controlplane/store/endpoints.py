"""The links to the members of an etcd cluster, and who is asked next when one does not answer.

Three rules. Every call asks each endpoint, each try has a deadline, and the endpoint that answered last is asked first.
The one that is `home`, on this very machine, comes before it as soon as it is there again: what befalls another machine
then breaks nothing here. And a write goes only down a link that has just been seen to work: a link that is dead from
the start is then certainly no reason to wonder whether the write happened.

Who is asked again, and when, is told in `tries`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio
from aetcd import rpc

from controlplane.store import errors, tries

TRY_TIMEOUT_S = 5.0
"""The longest that one try may last, and for how long members that are between two leaders are asked again."""
STATUS_TIMEOUT_S = 2.0
"""A member says it without asking others."""
HOME_TRIES = 6
"""Of a watch, with pauses of 0.05 s, 0.1 s, … 1 s: 1.5 s, in which etcd has elected."""
AWAY_S = 30.0
"""How long home is not asked first after it has failed: it may be there and without a quorum."""
END_OF_STREAM: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs

# etcd closes links that ping more often than every 5 s. A silent member is noticed after time + timeout.
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # The core times an unanswered ping by this one; without it a dead link is never noticed.
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # despite its name, what one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", -1),  # a page of a listing is bounded by its count and MAX_COMMIT_BYTES
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # closing one store leaves the links of another alone
    ("grpc.enable_http_proxy", 0),
)

# The request itself is wrong or its object is gone: every member would say the same.
_FINAL = frozenset({
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
})  # fmt: skip


Ask = Callable[["Link", float], Awaitable[Any]]
"""One try at a member; the number says how long it may last, in seconds."""


class Refused(errors.Fatal):
    """A member answered that the request is wrong; `code` for callers to whom that means something else."""

    def __init__(self, what: str, link: "Link", error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.details = error.details() or ""
        super().__init__(f"etcd at {link.address} refuses to {what}: {self.details or self.code}")


class Link:
    """One member: its address, its channel and etcd's services on it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
        self.kv = rpc.KVStub(self._channel)
        self.lease = rpc.LeaseStub(self._channel)
        self.watch = rpc.WatchStub(self._channel)
        self.cluster = rpc.ClusterStub(self._channel)
        self.maintenance = rpc.MaintenanceStub(self._channel)

    @property
    def ready(self) -> bool:
        """Whether it is connected; it tries to be."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def check(self) -> None:
        """Raise the reason when the member cannot be reached; costs a round trip only when the link is not up."""
        if self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            request = rpc.RangeRequest(key=b"\0", limit=1, keys_only=True, serializable=True)
            await self.kv.Range(request, timeout=TRY_TIMEOUT_S)

    async def close(self) -> None:
        await self._channel.close(None)


class Endpoints:
    """All links; `call` and `write` ask them in turn."""

    def __init__(self, addresses: Sequence[str], credentials: grpc.ChannelCredentials | None, home: str = "") -> None:
        if not addresses:
            raise errors.Fatal("no etcd endpoint is configured; give at least one host:port")
        self._credentials = credentials
        self._home = home
        self._away_until = 0.0  # on the event loop's clock
        self._links = [Link(address, credentials) for address in sorted(addresses, key=lambda one: one != home)]
        self._retired: list[Link] = []
        self.closed = False

    async def call(self, what: str, ask: Ask, *, hasty: bool = False) -> Any:
        """For reads. `what` is a verb and its object, for error messages. `hasty`: it is tried as a write is.

        Raises `Unavailable` with the reason of each endpoint, and `Refused` when one says that the call is wrong.
        """
        asked = tries.Tries(self.in_order(), longest_s=TRY_TIMEOUT_S)
        while (link := await asked.next()) is not None:
            try:
                response = await self.guard(ask(link, asked.write_timeout_s if hasty else TRY_TIMEOUT_S))
            except (grpc.aio.AioRpcError, errors.Unavailable) as error:
                late = hasty and tries.is_late(error)
                asked.failed(why_not(what, link, error), again=late or tries.is_between_leaders(error), late=late)
            else:
                self.prefer(link)
                return response
        raise self.unavailable(what, asked.failures)

    async def range(self, what: str, request: Any, *, hasty: bool = False) -> Any:
        """What etcd answers to a RangeRequest. As `call`."""
        return await self.call(what, lambda link, timeout_s: link.kv.Range(request, timeout=timeout_s), hasty=hasty)

    async def revision(self) -> int:
        """The store's, as the quorum has it now. Raises as `call` does."""
        response = await self.range("read the revision", rpc.RangeRequest(key=b"\0", count_only=True))
        return int(response.header.revision)

    async def write(self, what: str, ask: Ask) -> tuple[Any, bool]:
        """The answer, and whether an earlier try may have been carried out, too. Raises as `call` does.

        It is asked for several times: it has to be one that cannot happen twice, or does no harm when it does.
        """
        asked = tries.Tries(self.in_order(), longest_s=TRY_TIMEOUT_S)
        in_doubt = False
        while (link := await asked.next()) is not None:
            try:
                await self.guard(link.check())
            except (grpc.aio.AioRpcError, errors.Unavailable) as error:
                asked.failed(why_not(what, link, error), again=False)
                continue
            try:
                response = await self.guard(ask(link, asked.write_timeout_s))
            except (grpc.aio.AioRpcError, errors.Unavailable) as error:
                late = tries.is_late(error)
                asked.failed(why_not(what, link, error), again=late or tries.is_between_leaders(error), late=late)
                in_doubt = in_doubt or not tries.is_dropped(error)
            else:
                self.prefer(link)
                return response, in_doubt
        raise self.unavailable(what, asked.failures, ambiguous=in_doubt)

    def in_order(self) -> Sequence[Link]:
        if self.closed:
            raise errors.Fatal("the store is closed")
        if self._links[0].address != self._home and asyncio.get_running_loop().time() >= self._away_until:
            home = self.home
            if home is not None and home.ready:
                self.prefer(home)
        return tuple(self._links)

    def prefer(self, link: Link) -> None:
        """Ask it first from now on."""
        if self._links[0] is link or link not in self._links:
            return
        if self._links[0].address == self._home:
            self._away_until = asyncio.get_running_loop().time() + AWAY_S
        self._links.remove(link)
        self._links.insert(0, link)

    def avoid(self, link: Link, failures: int) -> None:
        """Ask it last from now on. Home gets some tries more: it may be electing, and others be out of reach."""
        if link.address == self._home and failures < HOME_TRIES:
            return
        if link.address == self._home:
            self._away_until = asyncio.get_running_loop().time() + AWAY_S
        if link in self._links:
            self._links.remove(link)
            self._links.append(link)

    async def move(self, addresses: Sequence[str]) -> None:
        """Other members. The links to those that stay are kept."""
        kept = [link for link in self._links if link.address in addresses]
        known = {link.address for link in kept}
        gone = [link for link in self._links if link.address not in addresses]
        self._links = [*kept, *(Link(address, self._credentials) for address in addresses if address not in known)]
        for link in gone:
            await link.close()

    async def renew(self, credentials: grpc.ChannelCredentials) -> None:
        """Other credentials. What was begun goes on over the links that it has, until they are renewed once more."""
        retired, self._retired = self._retired, self._links
        self._credentials = credentials
        self._links = [Link(link.address, credentials) for link in self._links]
        for link in retired:
            await link.close()

    async def guard(self, awaitable: Awaitable[Any]) -> Any:
        """Tell a call that ended because the channel was closed from a task that was cancelled: grpc does not."""
        try:
            return await awaitable
        except (asyncio.CancelledError, grpc.aio.UsageError):
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            if self.closed:
                raise errors.Fatal("the store was closed meanwhile") from None
            raise errors.Unavailable("the link was closed: its member is gone", ambiguous=True) from None

    def unavailable(self, what: str, failures: Sequence[str], *, ambiguous: bool = False) -> errors.Unavailable:
        doubt = "; it may have happened nevertheless: look before repeating it" if ambiguous else ""
        return errors.Unavailable(
            f"etcd does not answer (to {what}): {'; '.join(failures)}{doubt}", ambiguous=ambiguous
        )

    @property
    def home(self) -> Link | None:
        """The link to the member on this machine."""
        return next((link for link in self._links if link.address == self._home), None)

    async def home_status(self) -> Any:
        """What the member on this machine says of itself, etcd's StatusResponse; None: it is not there."""
        return await self.status(self._home)

    async def status(self, address: str) -> Any:
        """What the member at an address says of itself, etcd's StatusResponse; None: it is not there."""
        link = next((link for link in self._links if link.address == address), None)
        if link is None or not link.ready:
            return None
        try:
            return await self.guard(link.maintenance.Status(rpc.StatusRequest(), timeout=STATUS_TIMEOUT_S))
        except (grpc.aio.AioRpcError, errors.Unavailable):
            return None

    async def is_home_again(self) -> bool:
        """Whether the member on this machine is there and knows a leader; it is asked first then."""
        home, status = self.home, await self.home_status()
        if home is None or status is None or not status.leader:
            return False
        self.prefer(home)
        return True

    async def close(self) -> None:
        self.closed = True
        for link in (*self._links, *self._retired):
            await link.close()


def why_not(what: str, link: Link, error: grpc.aio.AioRpcError | errors.Unavailable) -> str:
    """Why this endpoint did not answer; raises `Refused` when another one would not know better."""
    if isinstance(error, errors.Unavailable):
        return f"{link.address}: {error}"
    if error.code() in _FINAL:
        raise Refused(what, link, error) from error
    return f"{link.address}: {plain(error)}"


def plain(error: grpc.aio.AioRpcError) -> str:
    """Why a member did not answer, in its own or in the system's words."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    # "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: connection refused (111)"
    return (error.details() or "").rpartition("last error: ")[2] or str(error.code())
