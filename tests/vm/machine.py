"""A virtual machine with Debian's cloud kernel and cgroup v2 alone, in which the runtime's tests run.

    python -m tests.vm [-- pytest's arguments]

One rule: it needs nothing but processor time. The kernel was fetched by `deploy/setup.sh test`, the processor is
emulated (nested virtualisation is not to be counted on), its disk is a file that is gone with it, there is no network,
and it ends with its parent.
"""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.vm import guest

KERNEL = guest.REPOSITORY / ".cache/vm-kernel"
QEMU = "qemu-system-x86_64"
MEMORY_MB = 2048
DISK_MB = 512
TIMEOUT_S = 900
MARKER = "orch-vm-exit"
_TESTS = "tests/integration/runtime"
FILES = (
    *(f"{_TESTS}/test_{name}.py" for name in ("cgroups", "limits", "resources", "isolation")),
    *(
        f"{_TESTS}/test_userns.py::test_{name}"
        for name in (
            "files_on_disk_have_the_containers_ids",
            "two_containers_share_layers_but_no_ids",
            "a_plain_root_is_idmapped_unless_it_has_the_containers_ids",
            "idmapped_binds",
        )
    ),
    *(
        f"{_TESTS}/test_scripted.py::test_a_script_makes_the_same_container[{name}]"
        for name in ("nothing", "joined_namespaces")
    ),
)
"""What depends on the version of cgroups, layers that are idmapped on a disk, and overlays that take a mount namespace
of their own: an emulated processor takes four seconds for a test, too long for all.
"""
OPTIONS = ("-v", "-ra", "--color=no")


class Unavailable(Exception):  # noqa: N818 - named after what is so
    """The machine cannot be started; the text says what to do."""


def run(arguments: Sequence[str] = (*FILES, *OPTIONS), *, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Run pytest in the machine; its exit code and what it printed, which also goes to standard output as it comes.

    Raises Unavailable, and TimeoutError with what was printed until then.
    """
    images = list(KERNEL.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise Unavailable(f"{KERNEL} does not hold a kernel; run deploy/setup.sh test")
    with tempfile.TemporaryDirectory(prefix="orch-vm-") as folder:
        initial = Path(folder, "initial")
        guest.write(initial, kernel=KERNEL, arguments=shlex.join(arguments), marker=MARKER)
        disk = _format(Path(folder, "disk"))
        files = initial.open("rb"), disk.open("r+b")
    # The folder is gone already: whatever ends this process leaves nothing behind.
    with files[0], files[1]:
        return _boot(images[0], files[0].fileno(), files[1].fileno(), timeout_s)


def _format(disk: Path) -> Path:
    """An empty disk; the host stores only what is written to it."""
    with disk.open("wb") as file:
        file.truncate(DISK_MB << 20)
    try:
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True, capture_output=True)
    except FileNotFoundError:
        raise Unavailable("mke2fs is missing; install Debian's e2fsprogs") from None
    return disk


def _boot(kernel: Path, archive: int, disk: int, timeout_s: float) -> tuple[int, str]:
    command = ["timeout", "--signal=KILL", str(timeout_s), "setpriv", "--pdeathsig", "KILL", QEMU]
    command += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB), "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
    # What the disk holds need not survive a crash of the host.
    command += ["-drive", f"file=/proc/self/fd/{disk},format=raw,if=virtio,cache=unsafe"]
    command += ["-initrd", f"/proc/self/fd/{archive}", "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"]
    said: list[str] = []
    try:
        # `timeout` itself ends with us: it would wait for the machine otherwise.
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[archive, disk],
        ) as machine:
            assert machine.stdout is not None, "it was asked for"
            for line in machine.stdout:
                said.append(line.rstrip())
                if not said[-1].startswith(MARKER):
                    print(said[-1], flush=True)
    except FileNotFoundError as error:
        raise Unavailable(f"{error.filename} is missing; run deploy/setup.sh test") from None
    codes = [int(line.split()[1]) for line in said if line.startswith(MARKER)]
    text = "\n".join(said)
    if not codes:
        raise TimeoutError(f"the machine did not finish within {timeout_s:.0f} s, or broke:\n{text[-4000:]}")
    return codes[-1], text


def main() -> int:
    """The exit code."""
    given = sys.argv[1:]
    try:
        return run((*(given or FILES), *OPTIONS))[0]
    except (Unavailable, TimeoutError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return 2
