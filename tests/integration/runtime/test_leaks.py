"""Nothing is left behind: not by many lives, and not by kills in the middle of one."""

import os
import signal
from pathlib import Path

import pytest

from runtime import client, errors, state
from tests.integration.runtime.conftest import Box, wait_gone, wait_until
from tests.support import groups, processes

pytestmark = pytest.mark.root

CYCLES = 2000
AT_ONCE = 4
_OTHERS = CYCLES // 10


def at_rest(launcher: int) -> bool:
    """Whether its zygote's one child is the monitor that stands by, and not one that has ended and is not reaped."""
    found = processes.monitors(launcher)
    return len(found) == 1 and processes.living(found) == found


def kernel_objects() -> dict[str, int]:
    """What the kernel holds on the whole machine; other tests and programs make some too."""
    objects = {f"cgroups of {name}": int(count) for name, _, count, _ in _columns("/proc/cgroups")}
    wanted = {"net_namespace", "pid_namespace", "user_namespace", "mnt_namespace", "uts_namespace"}
    objects |= {name: int(active) for name, active, *_ in _columns("/proc/slabinfo") if name in wanted}
    objects |= {f"keys of user {user}": int(count) for user, count, *_ in _columns("/proc/key-users")}
    if groups.V2:
        rows = dict(line.split() for line in Path(groups.LAYOUT.unified, "cgroup.stat").read_text().splitlines())
        objects["dying groups"] = int(rows["nr_dying_descendants"])
    return objects


def _columns(path: str) -> list[list[str]]:
    """The rows of a table of the kernel that are no comment."""
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    return [row for row in rows if not row[0].startswith(("#", "slabinfo"))]


def test_two_thousand_lives_leak_nothing(box: Box) -> None:
    """Processes, the launcher's descriptors and memory, mounts, cgroups and folders are as they were; the kernel's
    groups, namespaces and keys are, too, but for what others make meanwhile.
    """
    launcher = box.launcher.ping()
    overlays = [box.overlay(f"o{number}") for number in range(AT_ONCE)]

    def lives(count: int) -> None:
        """`count` containers, some at once, each created, run, ended and deleted."""
        for first in range(0, count, AT_ONCE):
            pids = []
            for number in range(AT_ONCE):
                config = box.config(f"c{number}", "true")
                made = box.launcher.create(f"c{number}", config, overlay=overlays[number])
                pids.append(made["monitor_pid"])
            for number, pid in enumerate(pids):
                wait_gone(pid)
                ended = state.load_exit(box.root, f"c{number}")
                assert ended is not None, first
                assert ended.exit_code == 0, first
                client.delete(box.root, f"c{number}")

    def world() -> dict[str, object]:
        return {
            "launcher's children": len(processes.children(launcher)),
            "monitors, but for the one that stands by": len(processes.monitors(launcher)) - 1,
            "launcher's descriptors": len(list(Path(f"/proc/{launcher}/fd").iterdir())),
            "mounts": [
                line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(box.folder) in line
            ],
            "files": sorted(str(path) for path in Path(box.root).rglob("*")),
            "cgroups": groups.below(box.parent),
        }

    lives(AT_ONCE)
    wait_until(lambda: at_rest(launcher), "the launcher has reaped, and one stands by")
    before, rss, kernel = world(), resident_kb(launcher), kernel_objects()
    lives(CYCLES)
    wait_until(lambda: at_rest(launcher), "the launcher has reaped, and one stands by")
    assert world() == before
    assert resident_kb(launcher) < rss + 1000
    # The kernel frees them late, so this waits for it.
    wait_until(lambda: not _grown(kernel), f"the kernel has freed {_grown(kernel)}", timeout_s=30)


def _grown(before: dict[str, int]) -> dict[str, int]:
    """How many more there are, where it is more than others can have made."""
    growth = {name: count - before.get(name, 0) for name, count in kernel_objects().items()}
    return {name: more for name, more in growth.items() if more > _OTHERS}


def resident_kb(pid: int) -> int:
    """VmRSS."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_killed_standby_is_replaced(box: Box) -> None:
    """The monitor that stands by may be killed at any time: the next creation works."""
    launcher = box.launcher.ping()
    for number in range(3):
        wait_until(lambda: len(processes.monitors(launcher)) == 1, "one stands by")
        (standby,) = processes.monitors(launcher)
        os.kill(standby, signal.SIGKILL)
        wait_until(lambda gone=standby: gone not in processes.monitors(launcher), "the launcher has reaped it")
        box.create(f"c{number}", box.config(f"c{number}", "true"))
        assert box.ended(f"c{number}").exit_code == 0


def test_standby_ends_with_the_launcher(box: Box) -> None:
    """Even when the launcher is killed, nothing stays behind that has no container."""
    launcher = box.launcher.ping()
    wait_until(lambda: len(processes.monitors(launcher)) == 1, "one stands by")
    (standby,) = processes.monitors(launcher)
    os.kill(launcher, signal.SIGKILL)
    wait_gone(standby)


@pytest.mark.parametrize("nth", range(6))
def test_monitor_killed_during_creation(box: Box, nth: int) -> None:
    """Whenever it is killed: the caller hears of it, and delete removes whatever was made."""
    launcher = box.launcher.ping()
    body = {"container": "a", "config": box.config("a", "sleep", "100"), "overlay": box.overlay("a"), "start": True}
    box._made.append("a")
    client.protocol.send(box.launcher.socket, {"id": 5, "verb": "create", **body})
    wait_until(lambda: processes.monitors(launcher), "the monitor is there")
    for _ in range(nth * 500):
        os.getpid()  # a little later each time
    for pid in processes.monitors(launcher):
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    message = client.protocol.receive(box.launcher.socket)
    assert message is not None
    if "error" in message.body:
        with pytest.raises(errors.PeerGone, match="create a"):
            client.protocol.result(message.body)
    client.delete(box.root, "a", force=True)
    assert not Path(box.root, "a").exists()
    assert groups.below(box.parent) == []
    assert box.launcher.ping()
