"""What people write: YAML text to validated objects, and back.

    read       sources → Manifest, or InvalidManifest with every mistake and its place
    validate   object → problems; the same rules for objects that came from elsewhere
    resolve    object → a copy with every default filled in
    changes    two objects → lines such as `spec.replicas: 3 → 5`
    to_yaml    object → text that `read` reads back; to_dict for other printers
    explain    `service.spec.template` → its documentation (`explain.explain`)

Everything is generic over the schema (`protos/`): a field that is added there is read, checked, written, compared and
explained without a line here. Rules across fields are in `rules`. Nothing here reads files, clocks or the network.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manifests.defaults import resolve
    from manifests.diff import changes
    from manifests.documents import MAX_BYTES, Source
    from manifests.files import Load, Unloadable
    from manifests.mistakes import InvalidManifest, Mistake, Place
    from manifests.problems import Problem
    from manifests.reader import Manifest, Written, read
    from manifests.rules import validate, validate_change
    from manifests.write import to_dict, to_yaml

__all__ = [
    "MAX_BYTES",
    "InvalidManifest",
    "Load",
    "Manifest",
    "Mistake",
    "Place",
    "Problem",
    "Source",
    "Unloadable",
    "Written",
    "changes",
    "read",
    "resolve",
    "to_dict",
    "to_yaml",
    "validate",
    "validate_change",
]

_HOMES = {
    "resolve": "defaults",
    "changes": "diff",
    "MAX_BYTES": "documents",
    "Source": "documents",
    "Load": "files",
    "Unloadable": "files",
    "InvalidManifest": "mistakes",
    "Mistake": "mistakes",
    "Place": "mistakes",
    "Problem": "problems",
    "Manifest": "reader",
    "Written": "reader",
    "read": "reader",
    "validate": "rules",
    "validate_change": "rules",
    "to_dict": "write",
    "to_yaml": "write",
}


if not TYPE_CHECKING:  # which would take any name for a good one

    def __getattr__(name: str) -> object:
        """Imports what is asked for, and no more: a program that only reads its options needs little of all this."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found
