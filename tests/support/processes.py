"""The runtime's processes, as /proc knows them: a launcher has a zygote, and that has the monitors."""

from pathlib import Path


def children(pid: int) -> list[int]:
    """The children of a process with one thread, with those that have ended and wait to be reaped; none of one gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def living(pids: list[int], name: str = "") -> list[int]:
    """Those that have not ended, by their name if one is given (/proc/PID/stat: "pid (name) state …")."""
    found = []
    for pid in pids:
        try:
            head, _, state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state[0] not in "ZX" and (not name or head.partition(" (")[2] == name):
            found.append(pid)
    return found


def zygotes(launcher: int) -> list[int]:
    """The launcher's zygote, if it is there."""
    return living(children(launcher), "orch-zygote")


def monitors(launcher: int) -> list[int]:
    """Those that its zygote has forked, dead or alive, and the one that stands by is among them."""
    return [pid for zygote in zygotes(launcher) for pid in children(zygote)]
