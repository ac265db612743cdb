"""Virtual machines with Debian's cloud kernel, in which the runtime's tests run: with cgroup v2 alone, or with systemd.

    python -m tests.vm [--systemd [--legacy]] [pytest's arguments]

One rule: they need nothing but processor time. Kernel and systemd were fetched by `deploy/setup.sh test`, the processor
is emulated (nested virtualisation is not to be counted on), the disk is a file that is gone with it, there is no
network, and a machine ends with its parent.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local import errors
from deploy.vmlab import initial as first
from deploy.vmlab import qemu
from tests.vm import files, guest

MEMORY_MB = 2048
DISK_MB = 512
TIMEOUT_S = 2400
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
_VERSION_2_ALONE = "cgroup_no_v1=all"
# A process 1 that crashes ends the machine.
_SYSTEMD = "systemd.show_status=0 systemd.crash_reboot=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of machine: what the kernel is told, which tests it is for, and whether systemd is process 1."""

    parameters: str
    tests: tuple[str, ...]
    systemd: bool


_SYSTEMD_FILES = (
    "tests/integration/runtime_cli/test_systemd.py",
    "tests/integration/units/test_tasks.py",
)
PLAIN = Kind(parameters=_VERSION_2_ALONE, tests=FILES, systemd=False)
SYSTEMD = Kind(parameters=f"{_SYSTEMD} {_VERSION_2_ALONE}", tests=_SYSTEMD_FILES, systemd=True)
LEGACY = Kind(parameters=f"{_SYSTEMD} systemd.unified_cgroup_hierarchy=0", tests=_SYSTEMD_FILES, systemd=True)
"""Controllers of version 1, and a hierarchy of version 2 without any in which systemd tells services apart: hybrid."""


def run(tests: Sequence[str] = (), *, kind: Kind = PLAIN, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Run tests in the machine, or those that it is for; pytest's exit code and what it printed, also as it comes.

    Raises LocalError, and TimeoutError with what was printed until then.
    """
    arguments = (*(tests or kind.tests), *OPTIONS)
    kernel = first.kernel()
    with tempfile.TemporaryDirectory(prefix="orch-vm-") as folder:
        initial = Path(folder, "initial")
        text = shlex.join(arguments)
        guest.write(initial, with_systemd=kind.systemd, arguments=text, marker=MARKER)
        disk = _format(Path(folder, "disk"))
        opened = initial.open("rb"), disk.open("r+b")
    # The folder is gone already: whatever ends this process leaves nothing behind.
    with opened[0], opened[1]:
        command = _command(kernel, kind.parameters, opened[0].fileno(), opened[1].fileno(), timeout_s)
        return _boot(command, [file.fileno() for file in opened], timeout_s)


def _format(disk: Path) -> Path:
    """An empty disk; the host stores only what is written to it."""
    with disk.open("wb") as file:
        file.truncate(DISK_MB << 20)
    try:
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True, capture_output=True)
    except FileNotFoundError:
        raise files.Unavailable("mke2fs is missing; install Debian's e2fsprogs") from None
    return disk


def _command(kernel: Path, parameters: str, archive: int, disk: int, timeout_s: float) -> list[str]:
    command = ["timeout", "--signal=KILL", str(timeout_s), "setpriv", "--pdeathsig", "KILL"]
    command += qemu.machine(
        qemu.EMULATION,
        kernel=kernel,
        initial=Path(f"/proc/self/fd/{archive}"),
        parameters=parameters,
        memory_mb=MEMORY_MB,
        processors=2,
    )
    # What the disk holds need not survive a crash of the host.
    command += ["-drive", f"file=/proc/self/fd/{disk},format=raw,if=virtio,cache=unsafe"]
    return [*command, "-serial", "stdio", "-no-reboot"]


def _boot(command: Sequence[str], inherited: Sequence[int], timeout_s: float) -> tuple[int, str]:
    said: list[str] = []
    try:
        # `timeout` itself ends with us: it would wait for the machine otherwise.
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=inherited,
        ) as machine:
            assert machine.stdout is not None, "it was asked for"
            for line in machine.stdout:
                said.append(line.rstrip())
                if not said[-1].startswith(MARKER):
                    print(said[-1], flush=True)
    except FileNotFoundError as error:
        raise files.Unavailable(f"{error.filename} is missing; run deploy/setup.sh test") from None
    codes = [int(line.split()[1]) for line in said if line.startswith(MARKER)]
    text = "\n".join(said)
    if not codes:
        raise TimeoutError(f"the machine did not finish within {timeout_s:.0f} s, or broke:\n{text[-4000:]}")
    return codes[-1], text


def main() -> int:
    """The exit code."""
    usage = "python -m tests.vm [--systemd [--legacy]] [pytest's arguments]"
    parser = argparse.ArgumentParser(usage=usage, allow_abbrev=False)
    parser.add_argument("--systemd", action="store_true", help="a machine with systemd as process 1")
    parser.add_argument("--legacy", action="store_true", help="with systemd, and cgroups of version 1")
    chosen, tests = parser.parse_known_args()
    if chosen.legacy and not chosen.systemd:
        parser.error("--legacy is a choice of systemd's: add --systemd")
    kind = LEGACY if chosen.legacy else SYSTEMD if chosen.systemd else PLAIN
    try:
        return run(tests, kind=kind)[0]
    except (errors.LocalError, TimeoutError) as error:
        print("vm:", error, getattr(error, "hint", ""), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vm: interrupted; the last line above names the test that was running", file=sys.stderr)
        return 130
