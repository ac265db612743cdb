"""What qemu is told: the machine's parts on its command line, and new disks."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.local import errors
from deploy.vmlab import plan

PROGRAM: Final = "qemu-system-x86_64"
EMULATION: Final = ("-accel", "tcg,thread=multi", "-cpu", "max")
KVM: Final = ("-accel", "kvm", "-cpu", "host")
_STORAGE: Final = "qemu-storage-daemon"
_TIMEOUT_S: Final = 30


def machine(
    accelerator: Sequence[str], *, kernel: Path, initial: Path, parameters: str, memory_mb: int, processors: int
) -> list[str]:
    """A machine without a disk, a network or a screen, whose console is the serial line."""
    command = [PROGRAM, *accelerator, "-smp", str(processors), "-m", str(memory_mb), "-nodefaults"]
    command += ["-display", "none", "-kernel", str(kernel), "-initrd", str(initial)]
    return [*command, "-append", f"console=ttyS0 quiet panic=-1 {parameters}"]


def of_laboratory(
    one: plan.Machine,
    places: plan.Places,
    accelerator: Sequence[str],
    *,
    kernel: Path,
    initial: Path,
    disks: Sequence[Path],
) -> list[str]:
    """A machine of the laboratory: its overlay is the first disk, those that it may only read follow."""
    mask = plan.LAN.netmask
    parameters = " ".join(
        (
            f"ip={one.address}::{plan.HOST}:{mask}:{one.name}:eth0:none",
            "net.ifnames=0",
            f"systemd.hostname={one.name}",
            f"systemd.machine_id={one.identity}",
            "systemd.show_status=0",
        )
    )
    command = machine(
        accelerator,
        kernel=kernel,
        initial=initial,
        parameters=parameters,
        memory_mb=plan.MEMORY_MB,
        # Two that are emulated wait for each other's locks: three machines with one each use this one's cores better.
        processors=1 if accelerator == EMULATION else 2,
    )
    # A crash of the host may take them along; when a machine's plug is pulled, the host keeps what was synced.
    command += ["-drive", f"file={places.overlay(one)},format=qcow2,if=virtio,cache=unsafe,discard=unmap"]
    for disk in disks:
        command += ["-drive", f"file={disk},format=raw,if=virtio,readonly=on"]
    command += ["-netdev", f"tap,id=lan,ifname={one.tap},script=no,downscript=no"]
    command += ["-device", f"virtio-net-pci,netdev=lan,mac={one.hardware_address},romfile="]
    return [*command, "-serial", f"file:{places.console(one)}"]


def make_overlay(overlay: Path, base: Path) -> None:
    """A disk of the base's size that begins as the base and keeps what is written for itself.

    By qemu's own daemon for disks: what the package of qemu brings has no qemu-img. LocalError when it cannot.
    """
    overlay.touch(mode=0o600)
    options = {"driver": "qcow2", "file": "file", "size": base.stat().st_size}
    options |= {"backing-file": str(base), "backing-fmt": "raw"}
    requests = (
        {"execute": "qmp_capabilities"},
        {"execute": "blockdev-create", "arguments": {"job-id": "create", "options": options}},
    )
    command = [_STORAGE, "--chardev", "stdio,id=here", "--monitor", "chardev=here"]
    command += ["--blockdev", f"driver=file,node-name=file,filename={overlay}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdin is not None, "it was asked for"
        try:
            for request in requests:
                daemon.stdin.write(json.dumps(request) + "\n")
            daemon.stdin.flush()
            _await_job(daemon)
        finally:
            daemon.kill()


def _await_job(daemon: "subprocess.Popen[str]") -> None:
    """Until the job has ended. The daemon tells of errors when it is asked for its jobs."""
    assert daemon.stdin is not None, "it was asked for"
    assert daemon.stdout is not None, "it was asked for"
    for line in daemon.stdout:
        said = json.loads(line)
        if "error" in said:
            raise errors.LocalError(f"{_STORAGE} cannot make a disk: {said['error']['desc']}")
        if said.get("event") == "JOB_STATUS_CHANGE" and said["data"]["status"] == "concluded":
            daemon.stdin.write('{"execute": "query-jobs"}\n')
            daemon.stdin.flush()
        if isinstance(said.get("return"), list):
            (job,) = said["return"]
            if "error" in job:
                raise errors.LocalError(f"{_STORAGE} cannot make a disk: {job['error']}")
            return
    raise errors.LocalError(f"{_STORAGE} ended without a word")
