"""AppArmor's profiles and SELinux's labels, which the kernel puts on a process at its next exec.

One rule: a container that asks for confinement by a module that the kernel does not have is refused, never unconfined.
"""

import os
from typing import Final

from runtime import errors
from runtime.spec import Process, Spec

_APPARMOR_SWITCH: Final = "/sys/module/apparmor/parameters/enabled"
_UNCONFINED: Final = "unconfined"
_APPARMOR_FILES: Final = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")  # the second before Linux 5.8


def check(spec: Spec, process: Process) -> None:
    """Refuse what this machine's kernel cannot do."""
    for field, label in (("linux.mountLabel", spec.mount_label), ("process.selinuxLabel", process.selinux_label)):
        if label and not has_selinux():
            raise _missing(field, "SELinux")
    # Unconfined is everything on a machine without AppArmor.
    if process.apparmor_profile not in {"", _UNCONFINED} and not has_apparmor():
        raise _missing("process.apparmorProfile", "AppArmor")


def apply(process: Process) -> None:
    """Have them put on at the next exec. While the host's /proc is there, since an image's could be anything."""
    if process.selinux_label:
        _write("process.selinuxLabel", "/proc/self/attr/exec", process.selinux_label)
    if process.apparmor_profile and has_apparmor():
        file = next((path for path in _APPARMOR_FILES if os.path.exists(path)), _APPARMOR_FILES[-1])
        _write("process.apparmorProfile", file, f"exec {process.apparmor_profile}")


def has_selinux() -> bool:
    """Whether SELinux is on: only then it has a file system (libselinux asks in the same way)."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return "selinuxfs" in file.read().split()


def has_apparmor() -> bool:
    """Whether AppArmor is on."""
    try:
        with open(_APPARMOR_SWITCH, encoding="ascii") as file:
            return file.read().strip() == "Y"
    except FileNotFoundError:
        return False


def _write(field: str, path: str, value: str) -> None:
    with errors.step(f"{field} {value!r}"):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


def _missing(field: str, module: str) -> errors.SetupFailed:
    message = (
        f"{field}: this machine's kernel has no {module}, or it is off; leave the field out, or switch {module} on"
    )
    return errors.SetupFailed(message, step=field)
