"""A profile of system calls as Docker takes it → `linux.seccomp` of the OCI runtime specification.

Docker's form has more: groups that count only where the container has a capability, on some machines, or from a kernel
on (`includes`, `excludes`), and the other machines whose programs a machine runs (`archMap`). All is decided here.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

_DOCKER_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "armv7l": "arm"}
_KEPT: Final = ("action", "errnoRet", "args")


def resolve(text: str, *, capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> dict[str, Any]:
    """The filter for a container with these capabilities (CAP_…) on this machine. The manifest's rules hold for it."""
    profile: Mapping[str, Any] = json.loads(text)
    # Docker writes null where something is left out.
    made = {key: value for key, value in profile.items() if value is not None and key not in {"archMap", "syscalls"}}
    if profile.get("archMap"):
        made["architectures"] = _architectures(profile, machine)
    made["syscalls"] = [
        _rule(group)
        for group in profile.get("syscalls") or ()
        if _holds(group.get("includes") or {}, capabilities, machine, kernel)
        and not _excluded(group.get("excludes") or {}, capabilities, machine, kernel)
    ]
    return made


def _architectures(profile: Mapping[str, Any], machine: str) -> list[str]:
    """`SCMP_ARCH_X86_64` and those beside it for x86_64; none for a machine that the profile does not name."""
    native = f"SCMP_ARCH_{machine.upper()}"
    for entry in profile["archMap"]:
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _rule(group: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: group[key] for key in _KEPT if group.get(key) is not None}
    return {"names": group.get("names") or [group["name"]], **kept}


def _holds(asked: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> bool:
    """All that a group asks for is there."""
    if asked.get("arches") and _DOCKER_NAMES.get(machine, machine) not in asked["arches"]:
        return False
    if not all(name in capabilities for name in asked.get("caps") or ()):
        return False
    return not asked.get("minKernel") or kernel >= _version(asked["minKernel"])


def _excluded(named: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> bool:
    """Any of what excludes a group is there."""
    if _DOCKER_NAMES.get(machine, machine) in (named.get("arches") or ()):
        return True
    if any(name in capabilities for name in named.get("caps") or ()):
        return True
    return bool(named.get("minKernel")) and kernel >= _version(named["minKernel"])


def _version(text: str) -> tuple[int, int]:
    """`4.8` and `4.8.0` → (4, 8)."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
