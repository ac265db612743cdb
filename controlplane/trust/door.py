"""The door: the one port that asks for no certificate, and that offers nothing but joining.

Its bounds are its rule: one request a connection, of 64 KiB at most, within ten seconds; so many connections at a time
and requests a second from one address and from all (`core/trust/knocking.py`). What is refused is told in one line and
logged, and who joins or may not is in the audit log.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from controlplane.core import request_errors as errors
from controlplane.core.trust import rotation
from controlplane.core.trust.knocking import Knocking
from controlplane.store import errors as store_errors
from controlplane.trust.doorbook import DoorBook
from controlplane.trust.membership import Membership
from controlplane.trust.registry import Registry
from protos import connections
from protos.orch.v1 import trust_pb2 as pb
from trust import framing
from trust.folder import Folder

HURRIED_S = 1.0
"""What a connection beyond the bounds has, to be told so."""

_log = structlog.get_logger()


class CannotOpen(Exception):  # noqa: N818 - named after what happened
    """The door's address cannot be listened on."""


class Door:
    """Serves joins. `folder` has the certificate of this instance."""

    def __init__(
        self,
        membership: Membership,
        registry: Registry,
        folder: Folder,
        book: DoorBook,
        now_ms: Callable[[], int],
        knocking: Knocking | None = None,
    ) -> None:
        self._book = book
        self._membership = membership
        self._registry = registry
        self._folder = folder
        self._now_ms = now_ms
        self._knocking = knocking or Knocking()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    @contextlib.asynccontextmanager
    async def serving(self, addresses: Sequence[str]) -> AsyncIterator[tuple[int, ...]]:
        """Open inside the block; yields the ports. Raises CannotOpen."""
        self.renew()
        async with contextlib.AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(await self._listen(address)) for address in addresses]
            yield tuple(server.sockets[0].getsockname()[1] for server in servers)

    def renew(self) -> None:
        """Shows the certificate that the folder has now to those who come next."""
        self._context.load_cert_chain(self._folder.identity)

    async def _listen(self, address: str) -> asyncio.Server:
        host, _, port = address.rpartition(":")
        try:
            return await asyncio.start_server(
                self._serve,
                host.strip("[]"),
                int(port),
                ssl=self._context,
                ssl_handshake_timeout=framing.TIMEOUT_S,
                ssl_shutdown_timeout=1.0,
                limit=framing.MAX_MESSAGE_BYTES,
            )
        except OSError as error:
            raise CannotOpen(f"cannot open the door at {address}: {error.strerror}") from error

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        peer = writer.get_extra_info("peername")
        if peer is None:  # it went while the handshake ended
            writer.close()
            return
        address = connections.origin(peer[0])
        too_many = self._knocking.enter(address, self._now_ms())
        try:
            hurried_s = HURRIED_S if too_many else framing.TIMEOUT_S
            async with asyncio.timeout(hurried_s):
                size = framing.length(await reader.readexactly(framing.HEAD_BYTES))
                request = framing.unpack(pb.DoorRequest, await reader.readexactly(size))
            async with asyncio.timeout(framing.ANSWER_S):
                answer = await self._answer(request, peer, too_many)
            async with asyncio.timeout(hurried_s):
                writer.write(framing.pack(answer))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, framing.Broken) as error:
            _log.debug("somebody knocked and said nothing of sense", why=str(error))
        finally:
            if not too_many:
                self._knocking.leave(address)
            writer.close()

    async def _answer(self, request: pb.DoorRequest, peer: object, too_many: str) -> pb.DoorResponse:
        try:
            if too_many:
                raise errors.Overloaded(too_many, hint="try again in a few seconds")
            if request.WhichOneof("request") == "join":
                return pb.DoorResponse(joined=await self._join(request.join, peer))
            roots = rotation.bundle(self._registry.trust)
            return pb.DoorResponse(roots=pb.RootsResponse(roots=roots, now=self._now_ms()))
        except errors.RequestError as error:
            _log.warning("not let in", peer=peer, why=error.message)
            return pb.DoorResponse(refusal=pb.DoorRefusal(message=error.message, hint=error.hint))
        except store_errors.StoreError as error:
            _log.warning("not let in", peer=peer, why=str(error))
            hint = "try again once the store answers; nothing was used up"
            return pb.DoorResponse(refusal=pb.DoorRefusal(message="the store does not answer", hint=hint))

    async def _join(self, request: pb.JoinRequest, peer: object) -> pb.JoinResponse:
        """Raises as `Membership.join`."""
        try:
            joined = await self._membership.join(request)
        except errors.RequestError as error:
            self._book.refused(request, str(peer[0]) if isinstance(peer, tuple) else "", error.message)
            raise
        self._book.joined(request, joined)
        return joined
