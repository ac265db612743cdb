"""What people know from other systems and write here, and what is to be said about it.

Else something that is spelt a little like it would be offered.
"""

import re
from collections.abc import Mapping
from typing import Final

from protos.orch.v1 import objects_pb2 as pb

_SHAPE: Final = "`volumes: [{name: work}]` beside `container`, and `mounts: [{volume: work, path: /work}]` in it"

REMEDIES: Final[Mapping[str, str]] = {
    "secrets": "there are no secrets yet: remove it",
    "configs": "there are no configs yet: remove it",
    "volumes": f"the containers of a task share its volumes; write {_SHAPE}",
    "volumeMounts": f"write {_SHAPE}",
    "emptyDir": "remove it: every volume begins as an empty folder, and is gone with its task",
    "hostPath": "remove it: folders of the node are not mounted; every volume begins as an empty folder",
    "persistentVolumeClaim": "remove it: no volume outlives its task yet",
}
"""What has no place here, by the field."""

_RENAMED: Final[Mapping[str, Mapping[str, str]]] = {
    pb.Mount.DESCRIPTOR.full_name: {
        "name": "volume",
        "source": "volume",
        "src": "volume",
        "mountPath": "path",
        "target": "path",
        "destination": "path",
    }
}
_OF_DOCKER: Final = re.compile(r"([a-z0-9][-a-z0-9]*):(/[\w./-]+)(:ro|:rw)?", re.ASCII)
"""`work:/srv:ro`."""
_NAME: Final = re.compile(r"[a-z0-9][-a-z0-9]*", re.ASCII)


def renamed(message: str, field: str) -> str:
    """What a field of a message is called here; empty when it is not known by another name."""
    return _RENAMED.get(message, {}).get(field, "")


def as_mapping(message: str, text: str) -> str:
    """How a message is written whose place holds a text; empty when that text is not known from anywhere."""
    if message == pb.Mount.DESCRIPTOR.full_name:
        if found := _OF_DOCKER.fullmatch(text):
            read_only = ", readOnly: true" if found[3] == ":ro" else ""
            return f"write it as {{volume: {found[1]}, path: {found[2]}{read_only}}}"
        return "write it as {volume: NAME, path: /FOLDER}"
    if message == pb.TaskVolume.DESCRIPTOR.full_name:
        return f"write it as {{name: {text if _NAME.fullmatch(text) else 'NAME'}}}"
    return ""
