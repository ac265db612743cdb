"""A virtual machine with Debian's cloud kernel and cgroup v2 alone, in which the runtime's tests run.

    python -m tests.vm [-- pytest's arguments]

One rule: it needs nothing but processor time. The kernel was fetched by `deploy/setup.sh test`, the processor is
emulated (nested virtualisation is not to be counted on), there is no disk and no network, and it ends with its parent.
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
TIMEOUT_S = 900
MARKER = "orch-vm-exit"
_TESTS = "tests/integration/runtime"
FILES = tuple(f"{_TESTS}/test_{name}.py" for name in ("cgroups", "limits", "isolation"))
"""What depends on the version of cgroups: an emulated processor takes four seconds for a test, too long for all."""
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
        archive = initial.open("rb")
    # The folder is gone already: whatever ends this process leaves nothing behind.
    with archive:
        return _boot(images[0], archive.fileno(), timeout_s)


def _boot(kernel: Path, archive: int, timeout_s: float) -> tuple[int, str]:
    command = ["timeout", "--signal=KILL", str(timeout_s), "setpriv", "--pdeathsig", "KILL", QEMU]
    command += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB), "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
    command += ["-initrd", f"/proc/self/fd/{archive}", "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"]
    said: list[str] = []
    try:
        # `timeout` itself ends with us: it would wait for the machine otherwise.
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[archive],
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
