"""Whether machines may use this one's processor (KVM), or have to have theirs emulated.

One rule: nobody is believed. `/dev/kvm` may be there and guests hang all the same, as they do in many a virtual
machine; so a guest is booted, once after each boot of this machine, and has a few seconds to say that it is there.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.vmlab import initial, qemu

_BOUND_S: Final = 20.0
"""With KVM it takes less than one."""
_SIGN: Final = b"laboratory: a guest is up"
_INIT: Final = b"""\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
echo '%s' >/dev/ttyS0
/bin/busybox poweroff -f
"""


def choose(cache: Path) -> Sequence[str]:
    """Arguments of qemu. What was found is kept in the cache for as long as this machine is up."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return qemu.EMULATION
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = cache / "accelerator.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    found = _read(kept)
    if found.get("boot") != boot:
        found = {"boot": boot, "kvm": guest_boots(qemu.KVM, timeout_s=_BOUND_S)}
        kept.write_text(json.dumps(found))
    return qemu.KVM if found["kvm"] else qemu.EMULATION


def _read(kept: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads(kept.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def guest_boots(accelerator: Sequence[str], *, timeout_s: float) -> bool:
    """Whether an ordinary guest comes as far as its first program within that time. LocalError without a kernel."""
    with tempfile.TemporaryDirectory(prefix="orch-vmlab-") as folder:
        archive = Path(folder, "initial")
        initial.write(archive, {"init": _INIT % _SIGN, "bin/busybox": initial.BUSYBOX.read_bytes()})
        command = qemu.machine(
            accelerator, kernel=initial.kernel(), initial=archive, parameters="", memory_mb=256, processors=1
        )
        command = ["timeout", "--signal=KILL", str(timeout_s), "setpriv", "--pdeathsig", "KILL", *command]
        command += ["-no-reboot", "-serial", "stdio"]
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    return _SIGN in said
