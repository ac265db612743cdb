"""`linux.cgroupsPath`: where a container's group is below the roots of the hierarchies.

/a/b                as it is
a/b                 /orch/a/b: relative to the parent of all groups that nobody gave another place
(nothing)           /orch/ID
slice:prefix:name   systemd's; refused, since its groups are made by asking systemd
"""

import posixpath
from typing import Final

_PARENT: Final = "/orch"


def of(container: str) -> str:
    """The group of a container whose configuration names none."""
    return f"{_PARENT}/{container}"


def absolute(path: str) -> str:
    """The path from the root; "" for none."""
    return "/" + posixpath.normpath(posixpath.join(_PARENT, path)).lstrip("/") if path else ""


def refusal(path: str) -> str:
    """Why a path cannot be taken, with the remedy; "" when it can."""
    if not path.startswith("/") and path.count(":") == 2:
        return "is systemd's form, slice:prefix:name, and --systemd-cgroup is not supported; write a path such as /a/b"
    if ".." in path.split("/"):
        return "must not hold '..'; write where the group is"
    if absolute(path).strip("/") in {"", _PARENT.strip("/")}:
        return "must be a group of the container's own, below the root; add a name"
    return ""
