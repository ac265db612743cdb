"""Where a container's cgroup is on this machine, whatever the version of its hierarchies."""

from pathlib import Path

from runtime import cgroups

LAYOUT = cgroups.current_layout()
V2 = LAYOUT.is_v2


def folder(controller: str, path: str) -> Path:
    """The folder of a group that holds the files of a controller."""
    return Path(LAYOUT.unified + path if V2 else LAYOUT.folder(controller, path))


def inside(controller: str) -> str:
    """The same as a container sees it of its own group."""
    return "/sys/fs/cgroup" if V2 else f"/sys/fs/cgroup/{controller}"


def below(path: str) -> list[str]:
    """All groups right below one, in every hierarchy."""
    mounts = {LAYOUT.unified} if V2 else {mount for _, mount in LAYOUT.controllers}
    return sorted(str(found) for mount in mounts for found in Path(mount + path).glob("*") if found.is_dir())
