"""What a container can see of the runtime's own processes, by looking at /proc all the time while they come and go."""

import os
from pathlib import Path
from typing import Any

import pytest

from runtime import state
from tests.integration.runtime.conftest import Box, wait_until
from tests.integration.runtime.escapes.conftest import MappedBox, bind
from tests.support import probe

pytestmark = pytest.mark.root

_TIMES = 100

# Its own binary and busybox are what runs in the container; 0, 1 and 2 are pipes and null devices.
_LOOKER = r"""
import os
own = os.readlink("/proc/self/exe")
plain = {own, "/bin/busybox", "/", "/dev/null", "/memfd:orch-init (deleted)"}
print("attacking", flush=True)
refused = looked = 0
seen = set()

def look(pid):
    for name in ("exe", "cwd", "root"):
        yield name, os.readlink(f"/proc/{pid}/{name}")
    for fd in os.listdir(f"/proc/{pid}/fd"):
        yield "fd " + fd, os.readlink(f"/proc/{pid}/fd/{fd}")
    with open(f"/proc/{pid}/maps") as maps:
        if "python" in maps.read() and os.readlink(f"/proc/{pid}/exe") != own:
            yield "maps", "python"

while not os.path.exists("/v/stop"):
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            for name, target in look(pid):
                looked += 1
                if target not in plain and not (name in {"fd 0", "fd 1", "fd 2"} and target.startswith("pipe:")):
                    seen.add((name, target))
        except PermissionError:
            refused += 1
        except OSError:
            pass
for name, target in sorted(seen):
    print("saw", name, target)
print("looked", looked, "refused", refused, flush=True)
"""


def _trace(box: Box, config: dict[str, Any]) -> None:
    """The right to trace: only in a user namespace of its own is it no right over the host's processes."""
    if isinstance(box, MappedBox):
        for name in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][name] = [*config["process"]["capabilities"][name], "CAP_SYS_PTRACE"]


def _look(box: Box, volume: Path, *, init: bool) -> None:
    """Start container `a`, which looks until the volume has a file `stop`."""
    volume.mkdir()
    config = box.config("a", os.path.realpath("/usr/bin/python3"), "-I", "-S", "-c", _LOOKER)
    probe.mount_programs(config)
    config["mounts"].append(bind(box, volume, "/v"))
    config["annotations"] = {"orch.init": str(init).lower()}
    _trace(box, config)
    box.create("a", config)
    wait_until(lambda: "attacking" in box.output("a"), "it looks")


def _saw_nothing(box: Box, volume: Path) -> None:
    (volume / "stop").touch()
    box.ended("a")
    *seen, told = box.output("a").splitlines()[1:]
    words = told.split()
    assert seen == []
    assert int(words[1]) > 0, "it has seen what may be seen"
    assert int(words[3]) > 0, "it has met processes of the runtime, which refused to be looked at"


@pytest.mark.parametrize("init", [False, True], ids=["program", "reaper"])
def test_while_processes_join(box: Box, tmp_path: Path, init: bool) -> None:
    """CVE-2016-9962: no descriptor, folder, file or memory of the runtime in a hundred commands that join, not even for
    one that may trace what is in its user namespace. It fails when the launcher stays dumpable (prctl(2)).
    """
    _look(box, tmp_path / "volume", init=init)
    with box.monitor("a") as monitor:
        for _ in range(_TIMES):
            number, _, _ = monitor.execute({"args": ["/bin/busybox", "true"]})
            assert monitor.wait_exec(number, 20) == 0
    _saw_nothing(box, tmp_path / "volume")


def test_while_containers_start_beside_it(box: Box, tmp_path: Path) -> None:
    """Likewise, with containers that share its pid namespace, as the tasks of a group do."""
    _look(box, tmp_path / "volume", init=False)
    first = state.load(box.root, "a").pid
    for _ in range(_TIMES):
        config = box.config("b", "/bin/busybox", "true")
        for entry in config["linux"]["namespaces"]:
            if entry["type"] in {"pid", "user"}:
                entry["path"] = f"/proc/{first}/ns/{entry['type']}"
        box.create("b", config)
        box.ended("b")
        box.delete("b", force=True)
    _saw_nothing(box, tmp_path / "volume")


_AT_ONCE = """
for f in /proc/1/exe /proc/1/cwd /proc/1/root /proc/1/fd/*; do readlink $f; done
awk '{ print $6 }' /proc/1/maps
"""


def test_as_the_first_thing_below_the_reaper(box: Box) -> None:
    """A program that looks at process 1 at once finds the reaper there: in a hundred starts never what made it.

    It fails when the program does not wait for the reaper (`reaper.leave_behind`).
    """
    plain = {
        "/memfd:orch-init",
        "/memfd:orch-init (deleted)",
        "/",
        "/dev/null",
        "pipe",
        "",
        "[stack]",
        "[vdso]",
        "[vsyscall]",
    }
    for _ in range(_TIMES):
        config = box.config("a", "sh", "-c", _AT_ONCE)
        config["annotations"] = {"orch.init": "true"}
        _trace(box, config)
        box.create("a", config)
        assert box.ended("a").exit_code == 0
        told = [line.partition(":[")[0] for line in box.output("a").splitlines()]
        assert told[0] == "/memfd:orch-init (deleted)"
        assert set(told) <= {*plain, "[vvar]", "[vvar_vclock]"}
        box.delete("a")
        box.log_path("a").unlink()
