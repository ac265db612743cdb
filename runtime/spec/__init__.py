"""The OCI runtime specification's `config.json` (version 1.x, Linux) as values.

Two rules. Whatever the runtime does not do is refused with the field's full path, never ignored; annotations are
the exception that the specification makes. And a value that came out of `parse` needs no further checks.

One extension: `process.user.username` may hold what an image's USER says, `user[:group]` with names or numbers;
it is resolved against the container's own /etc/passwd and /etc/group.
"""

from runtime.spec.container import Spec, parse, sysctl_namespace
from runtime.spec.devices import Device
from runtime.spec.hooks import Hook, Hooks, parse_hooks
from runtime.spec.mounts import Mount, Overlay, parse_overlay
from runtime.spec.namespaces import Namespace
from runtime.spec.process import MAX_ID, Process, Rlimit, User, parse_process

__all__ = [
    "MAX_ID",
    "Device",
    "Hook",
    "Hooks",
    "Mount",
    "Namespace",
    "Overlay",
    "Process",
    "Rlimit",
    "Spec",
    "User",
    "parse",
    "parse_hooks",
    "parse_overlay",
    "parse_process",
    "sysctl_namespace",
]
