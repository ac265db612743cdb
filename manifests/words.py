"""Words that Linux gives: signals, limits of a process, capabilities. Ours, to read the same everywhere."""

import re

# signal(7); the aliases IOT, POLL and CLD are understood by everything that takes a signal's name.
_SIGNAL_WORDS = (
    "HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CLD CONT STOP TSTP TTIN "
    "TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS RTMIN RTMAX"
)
_SIGNALS = frozenset(_SIGNAL_WORDS.split())
_REAL_TIME = re.compile(r"RTMIN\+([1-9][0-9]?)|RTMAX-([1-9][0-9]?)", re.ASCII)
REAL_TIME_SPAN = 30
"""How far RTMAX (64) lies above RTMIN (34)."""
HIGHEST_SIGNAL = 64

# getrlimit(2), without RLIMIT_ and in small letters.
_ULIMIT_WORDS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
ULIMITS = frozenset(_ULIMIT_WORDS.split())

# capabilities(7), without CAP_.
_CAPABILITY_WORDS = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = frozenset(_CAPABILITY_WORDS.split())


def signal_names() -> list[str]:
    """`SIGHUP`, `SIGINT`, …"""
    return sorted(f"SIG{name}" for name in _SIGNALS)


def is_signal(text: str) -> bool:
    """`SIGTERM`, `TERM`, `15` and `SIGRTMIN+3` are signals."""
    if text.isascii() and text.isdigit():
        return 1 <= int(text[:4]) <= HIGHEST_SIGNAL
    name = text.removeprefix("SIG")
    if real_time := _REAL_TIME.fullmatch(name):
        return int(real_time[1] or real_time[2]) <= REAL_TIME_SPAN
    return name in _SIGNALS
