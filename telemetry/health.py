# ruff: noqa: N802 - gRPC gives the names
"""The standard gRPC health service, as gRPC's own document has it (grpc.health.v1).

The rule: an answer is what is so at that moment. Nothing is kept that could be forgotten to be set, and nobody looks
while nobody asks; for whoever watches, it is looked once a second.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

import grpc.aio
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from protos.answering import Context

SERVER = ""
"""The server as a whole."""
LOOK_S = 1.0

Serving: TypeAlias = Callable[[], bool]
Refusal: TypeAlias = Callable[[Mapping[str, Iterable[bytes]]], Awaitable[str]]
"""Why whoever has this connection may not ask; empty: they may."""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """`services`: whether each serves now, by its name. `refusal`: for a server that nothing else guards."""

    def __init__(self, services: Mapping[str, Serving], refusal: Refusal | None = None) -> None:
        self._services = services
        self._refusal = refusal

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        await self._guard(context)
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r:.80} is here")
        return self._state(request.service)

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        del request
        await self._guard(context)
        return pb.HealthListResponse(statuses={name: self._state(name) for name in self._services})

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> AsyncIterator[pb.HealthCheckResponse]:
        told: pb.HealthCheckResponse | None = None
        while True:
            await self._guard(context)  # at each look: who watches may be taken out meanwhile
            if (now := self._state(request.service)) != told:
                told = now
                yield now
            await asyncio.sleep(LOOK_S)

    def _state(self, name: str) -> pb.HealthCheckResponse:
        serves = self._services.get(name)
        if serves is None:
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
        state = pb.HealthCheckResponse.SERVING if serves() else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=state)

    async def _guard(self, context: Context) -> None:
        refusal = await self._refusal(context.auth_context()) if self._refusal is not None else ""
        if refusal:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)


def add(server: grpc.aio.Server, health: Health) -> None:
    """Has the server answer for itself."""
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
