"""A thousand agents of one process, which open a session each and keep it: `python -m tests.bench._agents`.

    ADDRESS COUNT [FOLDER]

It writes the seconds that all of them took to be registered, and holds them until its input ends. FOLDER has their
certificates; without it they speak in the clear.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import grpc.aio

from agent import rpc
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc, objects_pb2
from trust.core.identity import Role
from trust.folder import Folder

AT_ONCE = 50


async def _main(address: str, count: int, folder: Path | None) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    held: list[_Held] = []

    async def begin(number: int) -> None:
        name = f"n{number}"
        own = Folder(folder / name).load(Role.NODE) if folder is not None else None
        async with gate:
            channel = rpc.channel(address, own)
            held.append(_Held(channel, *await _session(channel, _register(name)), chance.uniform(0, 1)))

    began, chance = time.perf_counter(), random.Random(1)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(begin(number))
    print(time.perf_counter() - began, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # a thousand channels are closed by the kernel, and fast


class _Held:
    """A session that stays: what is said is heard, and heartbeats are sent, from a moment of its own on."""

    def __init__(self, channel: grpc.aio.Channel, call: Any, interval_s: float, phase: float) -> None:
        self._channel, self._call, self._interval_s = channel, call, interval_s
        self._sequence = 0
        self._work = asyncio.gather(self._hear(), self._beat(phase))

    async def _hear(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            if message.WhichOneof("message") == "assignment":
                self._sequence = message.assignment.results_in

    async def _beat(self, phase: float) -> None:
        await asyncio.sleep(self._interval_s * phase)
        while True:
            await self._call.write(wire.AgentMessage(heartbeat=wire.Heartbeat(sequence=self._sequence)))
            await asyncio.sleep(self._interval_s)


async def _session(channel: grpc.aio.Channel, register: wire.Register) -> tuple[Any, float]:
    """A session that has begun, and the seconds from heartbeat to heartbeat that were asked for.

    The instance may not be quite ready to lead, and says so.
    """
    why: object = None
    for _ in range(50):
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()
        try:
            await call.write(wire.AgentMessage(register=register))
            why = await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            why = error
        else:
            if why is not grpc.aio.EOF and why.WhichOneof("message") == "registered":
                return call, why.registered.heartbeat_interval / 1000
        await asyncio.sleep(0.1)
    raise AssertionError(f"{register.node_id} was not registered: {why}")


def _register(name: str) -> wire.Register:
    """Without an address: that each new node is told to all others is another matter, and more than sessions cost."""
    capacity = objects_pb2.NodeCapacity(cpu=4000, memory=2**32, tasks=100)
    description = objects_pb2.NodeDescription(hostname=name, capacity=capacity)
    return wire.Register(node_id=name, node_name=name, description=description)


if __name__ == "__main__":
    # Equal channels of one process would share a connection.
    rpc.OPTIONS = (*rpc.OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None))
