"""The node's name server alone in a process, with a thousand services: `python -m tests.bench._nameserver PORT`."""

import asyncio
import sys
from pathlib import Path

from agent.adapters.dns import DnsServer
from agent.adapters.dnsupstream import NodeServers
from agent.core.dns.budget import Budget
from agent.core.dns.respond import Asker
from agent.core.dns.zone import Zone
from protos.orch.v1 import dispatcher_pb2 as dpb

SERVICES = 1000
ENDPOINTS = 10
_TASK = Asker(served=True, namespace="default")


def service(number: int) -> dpb.NetworkService:
    """Ten ready tasks behind one address."""
    high, low = divmod(number, 25)
    endpoints = [
        dpb.Endpoint(task_id=f"web{number}-{slot}-a", slot=slot, address=f"10.1.{high}.{low * 10 + slot}", ready=True)
        for slot in range(1, ENDPOINTS + 1)
    ]
    address = f"10.96.{number >> 8}.{number & 255}"
    return dpb.NetworkService(
        id=f"s{number}", namespace="default", name=f"web{number}", address=address, endpoints=endpoints
    )


async def main(port: int) -> None:
    """Serve until killed; one line when it listens."""
    zone = Zone()
    zone.update({made.id: made for made in map(service, range(SERVICES))})
    server = DnsServer(
        zone, NodeServers(Path("/nonexistent")), lambda _: _TASK, port=port, budget=Budget(rate=1e9, burst=1e9)
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.listen("127.0.0.1")
        print("listening", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
