"""Reads metrics as Prometheus does: over TLS with a member's certificate, on a connection that stays."""

import asyncio
import contextlib
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from trust.core.identity import SERVER_NAMES, Role
from trust.folder import Folder

BOUND_S = 10.0


@dataclass(slots=True, kw_only=True)
class Reader:
    """A connection to a page of metrics."""

    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]

    async def ask(self, head: str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> tuple[int, str]:
        """The status and the content."""
        reader, writer = self.streams
        async with asyncio.timeout(BOUND_S):
            writer.write(head.encode())
            await writer.drain()
            said = (await reader.readuntil(b"\r\n\r\n")).decode()
            (size,) = re.findall(r"Content-Length: (\d+)", said)
            return int(said.split()[1]), (await reader.readexactly(int(size))).decode()


@contextlib.asynccontextmanager
async def reader(host: str, port: int, folder: Folder, role: Role = Role.CONTROLPLANE) -> AsyncIterator[Reader]:
    """Connected, as the member whose certificate is in the folder. Raises OSError."""
    streams = await asyncio.open_connection(host, port, ssl=context(folder), server_hostname=SERVER_NAMES[role])
    try:
        yield Reader(streams=streams)
    finally:
        streams[1].close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await streams[1].wait_closed()


async def ask_with(secure: ssl.SSLContext, host: str, port: int) -> tuple[int, str]:
    """As `reader`, with a context that a test has made. Raises OSError or IncompleteReadError."""
    streams = await asyncio.open_connection(host, port, ssl=secure, server_hostname=SERVER_NAMES[Role.CONTROLPLANE])
    try:
        return await Reader(streams=streams).ask()
    finally:
        streams[1].close()


def context(folder: Folder) -> ssl.SSLContext:
    """Whoever has this certificate."""
    made = ssl.create_default_context(cafile=str(folder.path / "roots.pem"))
    made.load_cert_chain(folder.identity)
    return made


def values(page: str) -> dict[str, float]:
    """Every sample: `orch_tasks{state="running"}` → its value."""
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def families(page: str) -> dict[str, str]:
    """The help of each metric of ours, by its name as Prometheus has it."""
    lines = re.findall(r"^# HELP (orch_\w+) (.*)$", page, re.MULTILINE)
    return {name: text for name, text in lines if not name.endswith("_created")}


def problems(page: str) -> str:
    """What Prometheus' own judge has to say of a page; empty: nothing."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else f"{done.returncode}: {done.stdout}{done.stderr}"


def ours(text: str) -> set[str]:
    """The metrics of ours that a text names."""
    return set(re.findall(r"\borch_\w+", text))
