"""Stands between two programs, so that each takes the other for one of a release before: what that release did not know
is left out of every message on its way, and a call that it did not have is refused as such.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2 as d

from protos import wire

Filter = Callable[[bytes], bytes]


class Between(grpc.GenericRpcHandler):
    """Passes calls on to a server. `refused`: the calls that the release did not have."""

    def __init__(self, said: d.FileDescriptorSet, channel: grpc.aio.Channel) -> None:
        self._release = wire.Release(said)
        self._calls = {f"/{name}": shape for name, shape in wire.calls(said)}
        self._channel = channel
        self.passed: set[str] = set()
        self.refused: set[str] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Every call as a stream both ways: on the wire that is what each is."""
        method = str(handler_call_details.method)
        shape = self._calls.get(method)
        if shape is None:
            self.refused.add(method)
            return None
        self.passed.add(method)
        asked, answered = (self._filter(str(name).removeprefix(".")) for name in shape[:2])

        async def behaviour(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def said() -> AsyncIterator[bytes]:
                async for each in requests:
                    yield asked(each)

            call = self._channel.stream_stream(method)(said(), metadata=context.invocation_metadata())
            try:
                async for each in call:
                    yield answered(each)
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(error.trailing_metadata())
                await context.abort(error.code(), error.details() or "")
            finally:
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def _filter(self, name: str) -> Filter:
        return lambda text: self._release.known(name, text)


@contextlib.asynccontextmanager
async def between(said: d.FileDescriptorSet, server: str, listen: str) -> AsyncIterator[Between]:
    """Listens inside the block, and passes on to a server without TLS."""
    async with grpc.aio.insecure_channel(server) as channel:
        made = Between(said, channel)
        own = grpc.aio.server()
        own.add_generic_rpc_handlers((made,))
        assert own.add_insecure_port(listen), listen
        await own.start()
        try:
            yield made
        finally:
            await own.stop(0)
