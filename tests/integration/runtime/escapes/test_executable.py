"""The runtime's own program and descriptors, as a container can get hold of them while a process joins it."""

import fcntl
import hashlib
import os
import sys
from pathlib import Path

import pytest

from runtime import errors, state
from tests.integration.runtime.conftest import Box
from tests.integration.runtime.escapes.conftest import Attack

pytestmark = pytest.mark.root

# Writes back the byte that it has read: where the attack succeeds it does no harm.
_GRAB = """
import os, stat
own = os.readlink("/proc/self/exe")

def overwrite(path):
    fd = os.open(path, os.O_RDWR)
    if os.pwrite(fd, os.pread(fd, 1, 0), 0):
        print("overwrote", os.readlink(path), flush=True)
    os.close(fd)

print("attacking", flush=True)
held, looks = [], 0
while not os.path.exists("/v/stop"):
    for pid in [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
        for name in ("exe", "cwd", "root", *(f"fd/{n}" for n in range(12))):
            try:
                target = os.readlink(f"/proc/{pid}/{name}")
                if name == "exe" and target != "/bin/busybox":
                    held.append(os.open(f"/proc/{pid}/exe", os.O_PATH))
                if target.startswith(("/memfd:", "socket:", "anon_inode:")) or "python" in target:
                    print("got", name, target, flush=True)
            except OSError:
                pass
            else:
                looks += 1
for fd in held:
    try:
        overwrite(f"/proc/self/fd/{fd}")
    except OSError:
        pass
print("looked", looks, flush=True)
"""

_SHEBANG = """#!/proc/self/exe
import os
print("runs in", os.readlink("/proc/self/exe"), flush=True)
for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
    try:
        fd = os.open("/proc/self/exe", flags)
        print("wrote", os.write(fd, b"x"))
    except OSError as error:
        print(error.strerror)
"""


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_loop_inside_grabs_what_joins(box: Box, attack: Attack, tmp_path: Path) -> None:
    """CVE-2019-5736, CVE-2016-9962: by /proc/PID/exe and /proc/PID/fd of the runtime's process that joins it, a
    container gets the host's program and folders; ours shows none of them.
    """
    (tmp_path / "volume").mkdir()
    before = _digest(os.path.realpath(sys.executable))
    attack("a", _GRAB, v=tmp_path / "volume")
    with box.monitor("a") as monitor:
        for _ in range(60):
            number, _, _ = monitor.execute({"args": ["/bin/busybox", "true"]})
            assert monitor.wait_exec(number, 10) == 0
    (tmp_path / "volume/stop").touch()
    box.ended("a")
    lines = box.output("a").splitlines()
    assert not [line for line in lines if line.startswith(("got", "overwrote"))], lines
    assert lines[-1].startswith("looked")
    assert _digest(os.path.realpath(sys.executable)) == before


def test_the_runtime_is_made_to_execute_itself(box: Box, attack: Attack, tmp_path: Path) -> None:
    """CVE-2019-5736: the program to execute is /proc/self/exe, so that the runtime's own program stays in the container
    for a loop inside, which holds it and writes to it once nobody runs it. It is a sealed copy: the writes fail.
    """
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to("/proc/self/exe")
    before = _digest(os.path.realpath(sys.executable))
    attack("a", _GRAB, v=volume)
    with Path(f"/proc/{state.load(box.root, 'a').monitor_pid}/exe").open("rb") as copy:
        # While the monitor runs it, "text file busy" protects it too; when it has ended, the seal alone does.
        assert fcntl.fcntl(copy, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    with box.monitor("a") as monitor:
        for number in range(12):
            program = ("/proc/self/exe", "/v/link")[number % 2]
            executed, _, _ = monitor.execute({"args": [program, "-I", "-S", "-c", "pass"]})
            assert monitor.wait_exec(executed, 10) == 0
        (volume / "stop").touch()
        monitor.wait(10)
    lines = box.output("a").splitlines()
    assert "/memfd:" in "".join(lines), "the loop must have seen the copy, or the test shows nothing"
    assert not [line for line in lines if line.startswith("overwrote")], lines
    assert lines[-1].startswith("looked")
    assert _digest(os.path.realpath(sys.executable)) == before


def test_a_script_whose_interpreter_is_the_runtimes(box: Box, attack: Attack, tmp_path: Path) -> None:
    """CVE-2019-5736: `#!/proc/self/exe` makes the kernel itself execute the runtime's program inside the container;
    it is a sealed copy in memory, which nobody can write to.
    """
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "script").write_text(_SHEBANG)
    (volume / "script").chmod(0o755)
    attack("a", "print('attacking', flush=True)\nimport signal\nsignal.pause()", v=volume)
    exe = f"/proc/{state.load(box.root, 'a').monitor_pid}/exe"
    before = _digest(exe), _digest(os.path.realpath(sys.executable))
    ours, theirs = os.pipe()
    with box.monitor("a") as monitor, os.fdopen(ours, "rb", buffering=0) as output:
        number, _, _ = monitor.execute({"args": ["/v/script"]}, stdio=(theirs, theirs, theirs))
        os.close(theirs)
        monitor.wait_exec(number, 10)
        said = output.readall().decode().splitlines()
    assert said[0].startswith("runs in /memfd:"), said
    assert len(said) == 3, said
    assert not [line for line in said if line.startswith("wrote")], said
    assert (_digest(exe), _digest(os.path.realpath(sys.executable))) == before


def test_the_working_directory_is_no_way_out(box: Box, tmp_path: Path) -> None:
    """CVE-2024-21626: process.cwd /proc/self/fd/N starts a program in a host folder that the runtime has open."""
    canary = tmp_path / "canary"
    canary.write_text("the host's")
    script = f"cat {'../' * 12}{str(canary)[1:]}"
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as monitor:
        for number in range(3, 32):
            config = box.config("b", "sh", "-c", script)
            cwd = config["process"]["cwd"] = f"/proc/self/fd/{number}"
            with pytest.raises(errors.ContainerError):
                box.create("b", config)
            with pytest.raises(errors.ContainerError):
                monitor.execute({"args": ["sh", "-c", script], "cwd": cwd})
