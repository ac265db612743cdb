"""What every Runtime promises, the real one and the one of the simulation."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from agent.core.container import ContainerRequest
from agent.errors import NoSuchTask
from protos.orch.v1 import control_pb2 as cpb
from tests.contract.agent.conftest import RuntimeMaker
from tests.support.aio import bounded, within

Container = Callable[..., ContainerRequest]


@bounded(30)
async def test_a_container_runs_until_it_is_asked_to_stop(runtimes: RuntimeMaker, container: Container) -> None:
    """Its exit is told to whoever waits, and to whoever asks later."""
    async with runtimes() as runtime:
        started = await runtime.start(container("web"))
        assert started.exit is None
        assert (await runtime.containers())["web"] == started
        waiting = asyncio.ensure_future(runtime.wait("web"))
        while not waiting.done():
            await runtime.signal("web", "SIGTERM")  # again, until the shell has set its trap
            await asyncio.wait({waiting}, timeout=0.05)
        assert (await waiting).code == 143
        assert (await runtime.wait("web")) == await waiting


@bounded(30)
async def test_what_runs_is_adopted(runtimes: RuntimeMaker, container: Container) -> None:
    """The same process, with the same times; SIGKILL is exit code 137."""
    async with runtimes() as runtime:
        started = await runtime.start(container("web"))
    async with runtimes() as runtime:
        found = await runtime.containers()
        assert found == {"web": started}
        await runtime.signal("web", "SIGKILL")
        ended = await within(5, runtime.wait("web"), what="the container ends")
        assert ended.code == 137
    async with runtimes() as runtime:
        assert (await runtime.containers())["web"].exit == ended


@bounded(30)
async def test_deleting_ends_it_and_may_be_repeated(runtimes: RuntimeMaker, container: Container) -> None:
    """Afterwards there is nothing, and the name can be used again."""
    async with runtimes() as runtime:
        await runtime.start(container("web"))
        await runtime.delete("web")
        await runtime.delete("web")
        assert await runtime.containers() == {}
        await runtime.start(container("web"))
        await runtime.delete("web")


@bounded(30)
async def test_what_is_not_there(runtimes: RuntimeMaker) -> None:
    """Nothing to signal is no error; nothing to wait for, to measure or to run a command in is one."""
    async with runtimes() as runtime:
        await runtime.signal("nobody", "SIGTERM")
        with pytest.raises(NoSuchTask):
            await runtime.wait("nobody")
        assert await runtime.usage(["nobody"]) == {}
        with pytest.raises(NoSuchTask):
            await runtime.execute("nobody", cpb.ExecStart(command=["cat"]))


@bounded(30)
async def test_a_lease_ends_a_container_unless_it_is_put_off(runtimes: RuntimeMaker, container: Container) -> None:
    """Whoever holds it need not be there: another user of the runtime finds it dead."""
    async with runtimes() as runtime:
        began_s = runtime.clock_s()
        await runtime.start(dataclasses.replace(container("short"), until_s=began_s + 1))
        await runtime.start(dataclasses.replace(container("long"), until_s=began_s + 1))
        await runtime.start(container("free"))
        await runtime.extend("long", began_s + 3_600)
        await runtime.extend("nobody", began_s + 3_600)
        assert (await within(10, runtime.wait("short"), what="its lease ends")).code == 137
        assert runtime.clock_s() >= began_s + 1, "not before"
        await runtime.extend("short", began_s + 3_600)
        await runtime.extend("long", runtime.clock_s() + 0.1)
    async with runtimes() as runtime:
        there = await runtime.containers()
        assert (there["short"].exit is not None, there["free"].exit) == (True, None)
        assert (await within(10, runtime.wait("long"), what="its lease ends, with nobody there")).code == 137
        for name in ("short", "long", "free"):
            await runtime.delete(name)


@bounded(30)
async def test_usage(runtimes: RuntimeMaker, container: Container) -> None:
    """A running container has at least one process and some memory."""
    async with runtimes() as runtime:
        await runtime.start(container("web"))
        used = await runtime.usage(["web", "nobody"])
        assert list(used) == ["web"]
        assert used["web"].pids >= 1
        assert used["web"].memory_bytes > 0
        await runtime.delete("web")


@bounded(30)
async def test_a_command(runtimes: RuntimeMaker, container: Container) -> None:
    """What goes in comes out of `cat`, and its end is told."""
    async with runtimes() as runtime:
        await runtime.start(container("web"))
        command = await runtime.execute("web", cpb.ExecStart(command=["cat"], stdin=True))
        await command.write(b"hello")
        await command.close_stdin()
        assert [data async for _, data in command.output()] == [b"hello"]
        assert await command.exit_code() == 0
        await command.close()
        await runtime.delete("web")
