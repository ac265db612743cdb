"""Capability names and numbers (capabilities(7)), and putting a process into given sets."""

from typing import Final

from runtime import syscalls
from runtime.values import frozen

NAMES: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
"""In the kernel's order: the index is the number."""

NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}


@frozen
class Capabilities:
    """The five sets, as bit masks."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0


def mask(names: tuple[str, ...]) -> int:
    """The bit mask of capabilities by name; KeyError for a name that does not exist."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def missing(sets: Capabilities) -> list[int]:
    """What this kernel has and the bounding set must not hold."""
    bounding = sets.bounding
    return [number for number in range(len(NAMES)) if not bounding >> number & 1 and syscalls.capability_known(number)]


def limit_bounding_set(sets: Capabilities) -> None:
    """Drop what the bounding set must not hold. Needs CAP_SETPCAP, so it comes before the change of user."""
    for number in missing(sets):
        syscalls.drop_from_bounding_set(number)


def held() -> Capabilities:
    """What the process has now, but for the bounding and ambient sets."""
    effective, permitted, inheritable = syscalls.capget()
    return Capabilities(effective=effective, permitted=permitted, inheritable=inheritable)


def assume(sets: Capabilities, *, beside: int = 0) -> None:
    """Take the other four sets, after the change of user (with kept capabilities).

    What is in the mask `beside` and was permitted stays permitted, until `give_up`.
    """
    permitted = sets.permitted | held().permitted & beside
    syscalls.capset(effective=sets.effective, permitted=permitted, inheritable=sets.inheritable)
    syscalls.clear_ambient_set()
    # The kernel has no ambient capability that is not permitted and inheritable too (capabilities(7)). The config that
    # `runc spec` writes asks for such, and counts on their being left out.
    possible = sets.ambient & sets.permitted & sets.inheritable
    for number in range(len(NAMES)):
        if possible >> number & 1:
            syscalls.raise_ambient(number)


def exercise(mask: int) -> None:
    """Have the permitted ones of a mask in effect."""
    now = held()
    effective = now.effective | now.permitted & mask
    syscalls.capset(effective=effective, permitted=now.permitted, inheritable=now.inheritable)


def give_up(final: Capabilities) -> None:
    """Keep what was to be there in the end: one capset(2) and no other call."""
    syscalls.capset(effective=final.effective, permitted=final.permitted, inheritable=final.inheritable)
