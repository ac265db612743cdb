"""The `Trust` service: one method a call, each a few lines over the membership."""

# ruff: noqa: ARG002, N802 - gRPC gives the names and the arguments

from collections.abc import Callable

from controlplane.api import caller
from controlplane.trust.auditbook import AuditBook
from controlplane.trust.membership import Membership
from controlplane.trust.registry import Registry
from protos.answering import Context
from protos.orch.v1 import trust_pb2 as pb
from protos.orch.v1 import trust_pb2_grpc


class TrustService(trust_pb2_grpc.TrustServicer):
    """Add it to a server with `trust_pb2_grpc.add_TrustServicer_to_server`."""

    def __init__(
        self, membership: Membership, registry: Registry, book: AuditBook, *, may_read: Callable[[str], str]
    ) -> None:
        """`may_read` tells of the holder of a certificate why they may not read how nodes are; empty: they may."""
        self._membership = membership
        self._registry = registry
        self._may_read = may_read
        self._book = book

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        who = caller.required()
        return await self._membership.renew(who.identity, who.key_digest, request)

    async def Confirm(self, request: pb.ConfirmRequest, context: Context) -> pb.ConfirmResponse:
        who = caller.required()
        await self._membership.confirm(who.identity, who.key_digest)
        return pb.ConfirmResponse()

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        return pb.ListTokensResponse(tokens=self._membership.tokens())

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        return await self._membership.create_token(request, caller.required().identity.name)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        await self._membership.revoke_token(request.id)
        return pb.RevokeTokenResponse()

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        return pb.ListMembersResponse(members=[one for _, one in sorted(self._registry.members.items())])

    async def RevokeMember(self, request: pb.RevokeMemberRequest, context: Context) -> pb.RevokeMemberResponse:
        await self._membership.revoke_member(request.name)
        return pb.RevokeMemberResponse()

    async def ListAudit(self, request: pb.ListAuditRequest, context: Context) -> pb.ListAuditResponse:
        return pb.ListAuditResponse(entries=await self._book.entries(request))

    async def RotateRoot(self, request: pb.RotateRootRequest, context: Context) -> pb.RotateRootResponse:
        return await self._membership.rotate_root(request)

    async def MayRead(self, request: pb.MayReadRequest, context: Context) -> pb.MayReadResponse:
        return pb.MayReadResponse(refusal=self._may_read(request.certificate))
