"""`linux.cgroupsPath`: where a container's group is below the roots of the hierarchies.

/a/b                as it is
a/b                 /orch/a/b: relative to the parent of all groups that nobody gave another place
(nothing)           /orch/ID
slice:prefix:name   systemd's scope prefix-name.scope in a slice, which is asked for (`systemd`)
"""

import posixpath
from typing import Any, Final

PARENT: Final = "/orch"
IN_SCOPE: Final = "container"
"""The container's group in a scope of systemd's."""


def absolute(path: str) -> str:
    """The path from the root; "" for none."""
    return "/" + posixpath.normpath(posixpath.join(PARENT, path)).lstrip("/") if path else ""


def is_systemds(path: str) -> bool:
    """Whether it has the form slice:prefix:name."""
    return not path.startswith("/") and path.count(":") == 2


def scope(path: str) -> str:
    """The scope of systemd's that a container's group is in; "" for none."""
    above, name = posixpath.split(path)
    return above if name == IN_SCOPE and above.endswith(".scope") else ""


def replaced(config: dict[str, Any], path: str) -> dict[str, Any]:
    """A configuration, which is a whole one, with another `linux.cgroupsPath`."""
    return {**config, "linux": {**(config.get("linux") or {}), "cgroupsPath": path}}


def refusal(path: str) -> str:
    """Why a path cannot be taken, with the remedy; "" when it can."""
    if is_systemds(path):
        return "is systemd's form, slice:prefix:name; give --systemd-cgroup, or write a path such as /a/b"
    if ".." in path.split("/"):
        return "must not hold '..'; write where the group is"
    if absolute(path).strip("/") in {"", PARENT.strip("/")}:
        return "must be a group of the container's own, below the root; add a name"
    return ""
