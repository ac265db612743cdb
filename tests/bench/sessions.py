"""What a thousand agents cost an instance over TLS: the peer is the same in the clear, which only a benchmark can have.

The agents are a process of their own; the instance, over a store in memory, is this one.
"""

import asyncio
import contextlib
import itertools
import random
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from controlplane import main, server
from controlplane.instance import Identity, Instance
from controlplane.leader import World
from controlplane.store import api, memory
from controlplane.trust import founding
from controlplane.trust.registry import member_key
from controlplane.trust.standing import Standing, standing
from protos.orch.v1 import trust_pb2
from tests.bench.measure import Case
from tests.support import aio, doorfuzz, etcd
from tests.support.instances import IPV4
from trust.core.identity import Role
from trust.folder import Folder

AGENTS = 1_000
QUIET_S = 10.0
ROUNDS = 3


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Three figures of each run; runs over TLS and in the clear take turns."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as folder:
        nodes = [
            founding.Node(id=f"n{number}", name=f"n{number}", folder=Folder(Path(folder, "nodes", f"n{number}")))
            for number in range(AGENTS)
        ]
        plan = founding.Plan(
            instances=[founding.Instance(name="cp1", folder=Folder(Path(folder, "cp")))],
            admin="root",
            admins=Folder(Path(folder, "admin")),
            nodes=nodes,
        )
        founding.found(plan, main.now_ms())
        _part(Folder(Path(folder, "cp")))
        secure, clear = Runs(Path(folder), secure=True), Runs(Path(folder), secure=False)
        yield [
            _case("seconds_to_register", "s", lambda runs: runs.next()[0], secure, clear),
            _case("memory_each", "KiB", lambda runs: runs.again()[1], secure, clear),
            _case("cpu_when_quiet", "% of one", lambda runs: runs.again()[2], secure, clear),
        ]


def _part(own: Folder) -> None:
    """Takes the nodes out of what is founded: a commit of the store has a bound. They are put there afterwards."""
    whole = trust_pb2.Founding.FromString(own.read("founding.bin"))
    own.write("nodes.bin", whole.SerializeToString())
    members = [one for one in whole.members if one.role != Role.NODE]
    own.write("founding.bin", trust_pb2.Founding(trust=whole.trust, members=members).SerializeToString())


def _case(name: str, unit: str, figure: "Callable[[Runs], float]", secure: "Runs", clear: "Runs") -> Case:
    return Case(
        name=f"sessions.{AGENTS}_{name}",
        unit=unit,
        ours=lambda: figure(secure),
        peer=lambda: figure(clear),
        peer_name="in the clear",
        rounds=ROUNDS,
    )


class Runs:
    """Each run is a figure of every case: the first case makes them, the others look at them again."""

    def __init__(self, folder: Path, *, secure: bool) -> None:
        self._folder = folder
        self._secure = secure
        self._made: list[tuple[float, float, float]] = []
        self._looked_at: Iterator[tuple[float, float, float]] = iter(())

    def next(self) -> tuple[float, float, float]:
        """Another run."""
        self._made.append(asyncio.run(_run(self._folder, secure=self._secure)))
        self._looked_at = itertools.cycle(self._made)
        return self._made[-1]

    def again(self) -> tuple[float, float, float]:
        """The runs that were made, one after the other."""
        return next(self._looked_at)


async def _run(folder: Path, *, secure: bool) -> tuple[float, float, float]:
    """Seconds until all are registered, KiB of memory for each, and percent of a processor while nothing happens."""
    async with _instance(folder, secure=secure) as (address, made):
        before_mb = doorfuzz.memory_mb()
        arguments = ["-m", "tests.bench._agents", address, str(AGENTS), *([str(folder / "nodes")] if secure else [])]
        pipe = asyncio.subprocess.PIPE
        agents = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
        try:
            assert agents.stdout is not None
            seconds = float(await aio.within(180, agents.stdout.readline(), what="all agents are registered"))
            assert len(made.dispatcher.sessions.descriptions()) == AGENTS
            began, loop = _cpu_s(), asyncio.get_running_loop()
            at = loop.time()
            await asyncio.sleep(QUIET_S)
            percent = 100 * (_cpu_s() - began) / (loop.time() - at)
            return seconds, (doorfuzz.memory_mb() - before_mb) * 1024 / AGENTS, percent
        finally:
            with contextlib.suppress(ProcessLookupError):
                agents.kill()
            await agents.wait()


@contextlib.asynccontextmanager
async def _instance(folder: Path, *, secure: bool) -> AsyncIterator[tuple[str, Instance]]:
    store, ids, address = memory.MemoryStore(), itertools.count(1), f"127.0.0.1:{etcd.free_port()}"
    suffixes = (f"aaaa{number}" for number in itertools.count(1))
    world = World(now_ms=main.now_ms, random=random.Random(1), suffixes=suffixes, ranges=IPV4)
    made = Instance(store, Identity(name="cp1", address=address), world, new_id=lambda: f"id-{next(ids)}")
    async with contextlib.AsyncExitStack() as stack:
        trusted = await stack.enter_async_context(_standing(folder, store)) if secure else None
        edge = server.Edge(
            name="cp1",
            version="1",
            listen=[address],
            images=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-"))),
            advertise=address,
            now_ms=main.now_ms,
            new_id=lambda: f"id-{next(ids)}",
            trust=trusted,
        )
        await stack.enter_async_context(server.serving(edge, made, store))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(made.run())
        await aio.until(lambda: made.leader().here, what="the instance leads", timeout_s=20)
        yield address, made
        task.cancel()
    await store.close()


@contextlib.asynccontextmanager
async def _standing(folder: Path, store: memory.MemoryStore) -> AsyncIterator[Standing]:
    records = (folder / "cp" / "founding.bin").read_bytes()
    own = Folder(folder / "cp")
    audit, chance = folder / "audit.log", random.Random(1)
    async with standing(own, store, audit=audit, now_ms=main.now_ms, chance=chance) as made:
        await aio.until(lambda: bool(made.registry.members), what="it is founded", timeout_s=20)
        nodes = trust_pb2.Founding.FromString(own.read("nodes.bin")).members
        for start in range(0, len(nodes), 100):
            await store.commit(
                [api.Put(key=member_key(one.name), value=one.SerializeToString()) for one in nodes[start : start + 100]]
            )
        await aio.until(lambda: len(made.registry.members) > AGENTS, what="the nodes are members", timeout_s=20)
        yield made
    own.write("founding.bin", records)  # for the next run's store, which is empty


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
