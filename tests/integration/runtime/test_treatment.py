"""How the kernel treats a container's processes: scheduling, input and output, processors, memory, clocks and more."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, errors, state
from tests.integration.runtime.conftest import Box, wait_until
from tests.integration.runtime.test_exec import execute

pytestmark = pytest.mark.root

Change = Callable[[dict[str, Any]], None]


def process(**fields: Any) -> Change:
    return lambda config: config["process"].update(fields)


def linux(**fields: Any) -> Change:
    return lambda config: config["linux"].update(fields)


def mapped(config: dict[str, Any]) -> None:
    defaults.give_user_namespace(config, first_id=1 << 20)


def pid_of(box: Box, *changes: Change) -> int:
    """A container that sleeps; the pid of its first process."""
    config = box.config("a", "sleep", "1000")
    for change in changes:
        change(config)
    box.create("a", config, start=True)
    return state.load(box.root, "a").pid


def niceness_and_policy(stat: str) -> tuple[int, int]:
    """Fields 19 and 41 of /proc/PID/stat (proc(5)); those after the name are counted from 3."""
    row = stat.rpartition(")")[2].split()
    return int(row[19 - 3]), int(row[41 - 3])


@pytest.mark.parametrize("own_users", [False, True])
def test_scheduler_and_niceness(box: Box, *, own_users: bool) -> None:
    """Policy and niceness are the program's, also where a user namespace could not ask for them."""
    wanted = {"policy": "SCHED_BATCH", "nice": -5}
    pid = pid_of(box, process(scheduler=wanted), *([mapped] if own_users else []))
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, pid) == -5
    code, out = execute(box, "a", "cat", "/proc/self/stat", scheduler={"policy": "SCHED_IDLE"})
    assert (code, niceness_and_policy(out)) == (0, (0, os.SCHED_IDLE))


def test_scheduler_resets_on_fork(box: Box) -> None:
    """A flag reaches the kernel: children do not inherit the niceness."""
    wanted = {"policy": "SCHED_OTHER", "nice": -3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    out = box.run("a", "sh", "-c", "cat /proc/$$/stat /proc/self/stat; true", change=process(scheduler=wanted))
    assert [niceness_and_policy(line)[0] for line in out.splitlines()] == [-3, 0]


def pid_or_refusal(box: Box, *changes: Change) -> int | str:
    """What this machine's kernel makes of it."""
    try:
        return pid_of(box, *changes)
    except errors.SetupFailed as error:
        return error.message


def test_deadlines(box: Box) -> None:
    """Runtime, deadline and period arrive, or the kernel's refusal names the field."""
    wanted = {"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000, "period": 100_000_000}
    found = pid_or_refusal(box, process(scheduler=wanted))
    if isinstance(found, str):
        assert re.match("process.scheduler: SCHED_DEADLINE is refused: .*; ", found)
    else:
        assert os.sched_getscheduler(found) == _SCHED_DEADLINE


_SCHED_DEADLINE = 6


@pytest.mark.parametrize("own_users", [False, True])
def test_refused_real_time_scheduling_is_explained(box: Box, *, own_users: bool) -> None:
    """Whatever this machine's kernel says, it is either done or one error with the field and a remedy."""
    wanted = process(scheduler={"policy": "SCHED_FIFO", "priority": 10})
    found = pid_or_refusal(box, wanted, *([mapped] if own_users else []))
    if isinstance(found, str):
        assert re.match("process.scheduler: SCHED_FIFO is refused: .*realtimeRuntime", found)
    else:
        assert os.sched_getscheduler(found) == os.SCHED_FIFO


def test_io_priority(box: Box) -> None:
    """Class and level are the program's; an exec has its own."""
    wanted = {"class": "IOPRIO_CLASS_BE", "priority": 2}
    config = box.config("a", "sh", "-c", "ionice -p $$; exec sleep 1000")
    process(ioPriority=wanted)(config)
    box.create("a", config, start=True)
    code, out = execute(box, "a", "sh", "-c", "ionice -p $$", ioPriority={"class": "IOPRIO_CLASS_IDLE"})
    assert (code, out.strip()) == (0, "idle")
    assert box.output("a").strip() == "best-effort: prio 2"


def test_real_time_io_in_a_user_namespace(box: Box) -> None:
    """It is asked for while the host's privileges are there."""
    config = box.config("a", "sh", "-c", "ionice -p $$")
    for change in (mapped, process(ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 4})):
        change(config)
    box.create("a", config, start=True)
    assert box.ended("a").exit_code == 0
    assert box.output("a").strip() == "realtime: prio 4"


def test_processors_of_an_exec(box: Box) -> None:
    """The final ones count in the end; processors that the machine does not have are named."""
    pid_of(box)
    last = max(os.sched_getaffinity(0))
    script = "grep Cpus_allowed_list /proc/self/status"
    for affinity in ({"final": str(last)}, {"initial": "0", "final": str(last)}):
        code, out = execute(box, "a", "sh", "-c", script, execCPUAffinity=affinity)
        assert (code, out.split()[-1]) == (0, str(last))
    with pytest.raises(errors.SetupFailed, match=r"process.execCPUAffinity.initial: .*; this process may run on"):
        execute(box, "a", "true", execCPUAffinity={"initial": "8000"})


def test_processors_are_not_for_the_first_process(box: Box) -> None:
    """The specification has the field for execs, which inherit it from the container's process."""
    pid = pid_of(box, process(execCPUAffinity={"final": "0"}))
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    _, out = execute(box, "a", "grep", "Cpus_allowed_list", "/proc/self/status")
    assert out.split()[-1] == "0"


def test_personality(box: Box) -> None:
    """LINUX32 makes uname(2) tell a 32-bit machine, in an exec as well."""
    pid_of(box, linux(personality={"domain": "LINUX32"}))
    _, out = execute(box, "a", "uname", "-m")
    assert out.strip() != os.uname().machine or os.uname().machine not in {"x86_64", "aarch64"}
    box.delete("a", force=True)
    assert box.run("a", "uname", "-m", change=linux(personality={"domain": "LINUX"})) == os.uname().machine


def test_memory_policy(box: Box) -> None:
    """The program's memory is bound to the node; one that the machine does not have is refused by the field's name."""
    wanted = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    out = box.run("a", "head", "-1", "/proc/self/numa_maps", change=linux(memoryPolicy=wanted))
    assert re.search(r" bind(=static)?:0 ", out)
    config = box.config("b", "true")
    linux(memoryPolicy={"mode": "MPOL_INTERLEAVE", "nodes": "1000"})(config)
    with pytest.raises(errors.SetupFailed, match=r"linux.memoryPolicy: MPOL_INTERLEAVE is refused"):
        box.create("b", config)


def add_time_namespace(config: dict[str, Any], path: str = "") -> None:
    config["linux"]["namespaces"].append({"type": "time", **({"path": path} if path else {})})


def uptime_s(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


@pytest.mark.parametrize("own_users", [False, True])
def test_time_namespace(box: Box, *, own_users: bool) -> None:
    """The first process and what is executed later live by the shifted clocks, down to the nanosecond; the host not."""
    offsets = {"monotonic": {"secs": 86400, "nanosecs": 999999999}, "boottime": {"secs": 864000, "nanosecs": 5}}
    changes = [add_time_namespace, linux(timeOffsets=offsets), *([mapped] if own_users else [])]
    config = box.config("a", "sh", "-c", "cat /proc/uptime /proc/self/timens_offsets; exec sleep 1000")
    for change in changes:
        change(config)
    here = time.clock_gettime(time.CLOCK_BOOTTIME)
    box.create("a", config, start=True)
    code, out = execute(box, "a", "cat", "/proc/uptime")
    assert code == 0
    wait_until(lambda: box.output("a").count("\n") == 2, "the first process has shown its clocks")
    first, *shown = box.output("a").splitlines()
    for uptime in (out, first):
        assert 0 <= uptime_s(uptime) - here - 864000 < 60
    assert [line.split() for line in shown] == [["monotonic", "86400", "999999999"], ["boottime", "864000", "5"]]


def test_join_time_namespace(box: Box) -> None:
    """A container lives by the clocks of another one."""
    pid = pid_of(box, add_time_namespace, linux(timeOffsets={"boottime": {"secs": 500000}}))
    out = box.run("b", "cat", "/proc/uptime", change=lambda config: add_time_namespace(config, f"/proc/{pid}/ns/time"))
    assert uptime_s(out) > 500000


def test_impossible_time_offset_is_explained(box: Box) -> None:
    """A clock cannot be negative."""
    config = box.config("a", "true")
    for change in (add_time_namespace, linux(timeOffsets={"monotonic": {"secs": -(2**40)}})):
        change(config)
    with pytest.raises(errors.SetupFailed, match=r"linux.timeOffsets: the clock would be negative"):
        box.create("a", config)


@contextmanager
def interface(name: str) -> Iterator[None]:
    """A pair of virtual interfaces of the host; the other end is called after it."""
    os_run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    try:
        yield
    finally:
        os_run("ip", "link", "delete", f"{name}p")


def os_run(*line: str) -> None:
    subprocess.run(line, check=True, timeout=30)


@pytest.mark.parametrize("own_users", [False, True])
def test_network_devices(box: Box, *, own_users: bool) -> None:
    """An interface of the host is the container's under its new name, up, with its addresses, MTU and MAC."""
    name = f"of{os.getpid() % 10**6}"
    with interface(name):
        os_run("ip", "address", "add", "10.99.7.1/24", "dev", name)
        os_run("ip", "address", "add", "fd00:9::1/64", "dev", name)
        os_run("ip", "link", "set", name, "mtu", "1410", "address", "02:00:00:00:00:07")
        script = "ip -o address show dev data0; ip link show data0"
        config = box.config("a", "sh", "-c", f"({script}); exec sleep 1000")
        linux(netDevices={name: {"name": "data0"}})(config)
        if own_users:
            mapped(config)
        box.create("a", config, start=True)
        _, out = execute(box, "a", "sh", "-c", script)
        assert "inet 10.99.7.1/24" in out
        assert "inet6 fd00:9::1/64" in out
        assert "mtu 1410" in out
        assert "02:00:00:00:00:07" in out
        assert ",UP" in out
        assert not Path(f"/sys/class/net/{name}").exists()


def test_missing_network_device_is_named(box: Box) -> None:
    """The field tells which one is missing."""
    config = box.config("a", "true")
    linux(netDevices={"nosuch0": {}})(config)
    with pytest.raises(errors.SetupFailed, match=r"linux.netDevices.nosuch0: "):
        box.create("a", config)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (process(apparmorProfile="no-such-profile"), "process.apparmorProfile"),
        (process(selinuxLabel="system_u:system_r:no_such_t:s0"), "process.selinuxLabel"),
        (linux(mountLabel="system_u:object_r:no_such_t:s0"), "linux.mountLabel"),
    ],
)
def test_confinement_that_cannot_be_had_is_refused(box: Box, change: Change, field: str) -> None:
    """Never unconfined in silence: the module is not there, or does not know what is asked for."""
    config = box.config("a", "true")
    change(config)
    with pytest.raises(errors.SetupFailed, match=f"^{field}|mounts.*context"):
        box.create("a", config)


def test_no_confinement_asked_for(box: Box) -> None:
    """An empty text, and AppArmor's word for nothing, ask for nothing."""
    nothing = process(apparmorProfile="", selinuxLabel="")
    assert box.run("a", "echo", "ok", change=nothing) == "ok"
    assert box.run("b", "echo", "ok", change=process(apparmorProfile="unconfined")) == "ok"


def test_longest_names(box: Box) -> None:
    """Host and domain name may have the 64 bytes that the kernel keeps, and the host's own stay."""
    before = (os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text())
    names = ("h" * 64, "d" * 64)

    def change(config: dict[str, Any]) -> None:
        config.update(hostname=names[0], domainname=names[1])

    out = box.run("a", "cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", change=change)
    assert tuple(out.split()) == names
    assert (os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text()) == before
