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
TESTS = ("tests/integration/runtime", "-q", "-ra", "--color=no")


class Unavailable(Exception):  # noqa: N818 - named after what is so
    """The machine cannot be started; the text says what to do."""


def run(arguments: Sequence[str] = TESTS, *, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Run pytest in the machine; its exit code and what it printed, which also goes to standard output as it comes.

    Raises Unavailable, and TimeoutError with what was printed until then.
    """
    images = list(KERNEL.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise Unavailable(f"{KERNEL} does not hold a kernel; run deploy/setup.sh test")
    with tempfile.TemporaryDirectory(prefix="orch-vm-") as folder:
        initial = Path(folder, "initial")
        guest.write(initial, kernel=KERNEL, arguments=shlex.join(arguments), marker=MARKER)
        return _boot(images[0], initial, timeout_s)


def _boot(kernel: Path, initial: Path, timeout_s: float) -> tuple[int, str]:
    command = ["timeout", "--signal=KILL", str(timeout_s), "setpriv", "--pdeathsig", "KILL", QEMU]
    command += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB), "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initial)]
    command += ["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"]
    said: list[str] = []
    try:
        # `timeout` itself ends with us: it would wait for the machine otherwise.
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
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
        return run(given or TESTS)[0]
    except (Unavailable, TimeoutError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return 2
