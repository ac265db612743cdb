"""What an instance finds on its own machine: disk, clock, the ways to the others, its certificates for the store.

Two rules. Looking takes no longer than one connection that is not answered. And nothing is changed: what is dialed is
hung up on.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.core import machine as core
from controlplane.store import errors as store_errors
from protos.orch.v1 import control_pb2 as pb
from telemetry import clock

DIAL_S = 2.0
MAX_DIALED = 32


async def _nobody() -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMachine:
    """`folder`: the state folder. `others`: addresses (`host:port`) that this instance has to reach; raises StoreError.
    `certificates`: those between it and the store.
    """

    folder: Path
    now_ms: Callable[[], int]
    others: Callable[[], Awaitable[Iterable[str]]] = _nobody
    certificates: Callable[[], Sequence[core.StoreCertificate]] = tuple

    async def look(self) -> list[pb.Finding]:
        """Everything; what is not there to be looked at has no line."""
        found = os.statvfs(next(path for path in (self.folder, *self.folder.parents) if path.is_dir()))
        lines = [core.disk(str(self.folder), found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)]
        with contextlib.suppress(OSError):  # a container may not ask; its host has a doctor of its own
            lines.append(core.timekeeping(clock.is_kept()))
        lines += core.ways(await self._reached())
        return [*lines, *core.store_certificates(self.certificates(), self.now_ms())]

    async def _reached(self) -> Mapping[str, str]:
        try:
            addresses = sorted({*await self.others()})[:MAX_DIALED]
        except store_errors.StoreError:
            return {}  # what is wrong with the store has a line of its own
        problems = await asyncio.gather(*map(_problem, addresses))
        return dict(zip(addresses, problems, strict=True))


async def _problem(address: str) -> str:
    """Why nobody answers at an address; empty when somebody does."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(DIAL_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return f"no answer within {DIAL_S:g} s"
    except OSError as error:  # asyncio's own words leave out why
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    except ValueError as error:
        return str(error)
    writer.close()
    return ""
