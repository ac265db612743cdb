"""`linux.cgroupsPath`: where a container's group is below the roots of the hierarchies.

/a/b                as it is
a/b                 /orch/a/b: relative to the parent of all groups that nobody gave another place
(nothing)           /orch/ID
slice:prefix:name   systemd's; refused, since its groups are made by asking systemd
"""

import posixpath
from typing import Final

PARENT: Final = "/orch"


def absolute(path: str) -> str:
    """The path from the root; "" for none."""
    return "/" + posixpath.normpath(posixpath.join(PARENT, path)).lstrip("/") if path else ""


def refusal(path: str) -> str:
    """Why a path cannot be taken, with the remedy; "" when it can."""
    if not path.startswith("/") and path.count(":") == 2:
        return "is systemd's form, slice:prefix:name, and --systemd-cgroup is not supported; write a path such as /a/b"
    if ".." in path.split("/"):
        return "must not hold '..'; write where the group is"
    if absolute(path).strip("/") in {"", PARENT.strip("/")}:
        return "must be a group of the container's own, below the root; add a name"
    return ""
