"""Clients of a web server that lose nothing from sight: each request that fails is told with its time and kind.

python webload.py ADDRESS:PORT… [--fresh N] [--kept N] [--pause SECONDS]

It runs on the host and in a container, with nothing but Python's own modules. `--fresh` clients open a connection for
each request, `--kept` ones keep theirs as long as the server does. A connection that the server has closed properly
before a request was sent on it is no failure: the client opens another. Everything else but a 200 is.

It prints one JSON object a line: each failure at once, and every half second how things stand.
"""

import argparse
import asyncio
import collections
import json
import time
from typing import Any

TIMEOUT_S = 10.0
TELL_EVERY_S = 0.5
KINDS = (
    (ConnectionRefusedError, "refused"),
    (ConnectionResetError, "reset"),
    (BrokenPipeError, "reset"),
    (TimeoutError, "timeout"),
    (asyncio.IncompleteReadError, "closed without an answer"),
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class WrongAnswerError(Exception):
    """An answer came, and it is not the right one."""


class Load:
    """What the clients have seen so far."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.slowest_s = 0.0
        self.first: dict[str, float] = {}
        """When each task answered first, in seconds since 1970."""
        self.last_new: dict[str, float] = {}
        """When each answered last on a new connection."""
        self.ready_at: dict[str, float] = {}
        """When each told its node that it is ready."""
        self.by_task: collections.Counter[str] = collections.Counter()

    async def fresh(self, target: str, pause_s: float) -> None:
        """A client that opens a connection for each request."""
        while True:
            await self._counted(target, "fresh", self._once(target))
            await asyncio.sleep(pause_s)

    async def kept(self, target: str, pause_s: float) -> None:
        """A client that keeps its connection."""
        streams: Streams | None = None
        while True:
            if streams is not None and (streams[0].at_eof() or streams[1].is_closing()):
                streams[1].close()
                streams = None
            streams = await self._counted(target, "kept", self._on(streams, target))
            await asyncio.sleep(pause_s)

    async def _once(self, target: str) -> None:
        streams = await _connect(target)
        try:
            await self._ask(streams, "close", new=True)
        finally:
            streams[1].close()

    async def _on(self, streams: Streams | None, target: str) -> Streams | None:
        """One request on a connection that is there, or on another; returns what can be kept."""
        new, streams = streams is None, streams or await _connect(target)
        try:
            kept = await self._ask(streams, "keep-alive", new=new)
        except BaseException:
            streams[1].close()
            raise
        if kept:
            return streams
        streams[1].close()
        return None

    async def _ask(self, streams: Streams, connection: str, *, new: bool) -> bool:
        reader, writer = streams
        writer.write(f"GET / HTTP/1.1\r\nHost: web\r\nConnection: {connection}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if " 200 " not in head.partition("\r\n")[0]:
            raise WrongAnswerError(head.partition("\r\n")[0])
        lengths = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0]))
        self._note(json.loads(body), new=new)
        return "connection: keep-alive" in head.lower()

    def _note(self, body: dict[str, Any], *, new: bool) -> None:
        task, now = body["task"], time.time()
        self.by_task[task] += 1
        self.first.setdefault(task, now)
        if new:
            self.last_new[task] = now
        self.ready_at[task] = body["ready_at"]

    async def _counted(self, target: str, kind: str, request: Any) -> Any:
        began = time.time()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                result = await request
        except (OSError, EOFError, TimeoutError, WrongAnswerError, ValueError, IndexError) as error:
            self.failed += 1
            what = next((name for type_, name in KINDS if isinstance(error, type_)), "not answered with 200")
            told = {"failure": what, "client": kind, "target": target, "at": began, "error": repr(error)}
            print(json.dumps({**told, "took_s": round(time.time() - began, 3)}), flush=True)
            return None
        self.answered += 1
        self.slowest_s = max(self.slowest_s, time.time() - began)
        return result

    async def tell(self) -> None:
        """How things stand, again and again."""
        while True:
            standing = {"at": time.time(), "answered": self.answered, "failed": self.failed}
            more = {"slowest_s": round(self.slowest_s, 3), "by_task": self.by_task}
            times = {"first": self.first, "last_new": self.last_new, "ready_at": self.ready_at}
            print(json.dumps({**standing, **more, **times}), flush=True)
            self.slowest_s = 0.0
            await asyncio.sleep(TELL_EVERY_S)


async def _connect(target: str) -> Streams:
    address, _, port = target.rpartition(":")
    return await asyncio.open_connection(address.strip("[]"), int(port))


async def run(targets: list[str], *, fresh: int, kept: int, pause_s: float) -> None:
    """So many clients of each target, until somebody ends them."""
    load = Load()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.tell())
        for target in targets:
            for _ in range(fresh):
                group.create_task(load.fresh(target, pause_s))
            for _ in range(kept):
                group.create_task(load.kept(target, pause_s))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--fresh", type=int, default=2)
    parser.add_argument("--kept", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.03)
    given = parser.parse_args()
    asyncio.run(run(given.targets, fresh=given.fresh, kept=given.kept, pause_s=given.pause))


if __name__ == "__main__":
    main()
