"""`linux.namespaces`: what the container has of its own, or shares by a path."""

from typing import Final

from runtime import syscalls
from runtime.fields import Fields
from runtime.values import frozen

_NAMESPACES: Final = {
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "ipc": syscalls.CLONE_NEWIPC,
    "mount": syscalls.CLONE_NEWNS,
    "network": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "time": syscalls.CLONE_NEWTIME,
    "user": syscalls.CLONE_NEWUSER,
    "uts": syscalls.CLONE_NEWUTS,
}
KINDS: Final = tuple(_NAMESPACES)


@frozen
class Namespace:
    """A namespace to make, or with a path one to join."""

    kind: str
    flag: int
    path: str = ""


def parse_namespaces(linux: Fields) -> tuple[Namespace, ...]:
    """Read `linux.namespaces`; raises InvalidSpec."""
    found: dict[str, Namespace] = {}
    for fields in linux.children("namespaces"):
        kind, path = fields.text("type"), fields.text("path", default="")
        fields.finish()
        if kind not in _NAMESPACES:
            raise fields.refuse("type", f"{kind!r} is no namespace; use one of {', '.join(_NAMESPACES)}")
        if kind in found:
            raise fields.refuse("type", f"{kind} is there twice")
        if path and not path.startswith("/"):
            raise fields.refuse("path", f"{path!r} must be an absolute path")
        found[kind] = Namespace(kind=kind, flag=_NAMESPACES[kind], path=path)
    return tuple(found.values())
