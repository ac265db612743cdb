"""Who somebody is: the cluster, the role and the name in the subject of their certificate.

    O = the cluster's id    OU = the role    CN = the name: a node's id, an instance's name or a person's

The rule: a name alone says nothing. A person called like a node is another member, since their role is another.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,61}[a-z0-9])?", re.ASCII)
"""What a member may be called."""

NAME_HINT = "small letters, digits and . _ @ -, at most 63, beginning and ending with a letter or digit"


class Role(enum.StrEnum):
    """What a member is in the cluster."""

    ADMIN = "admin"
    """Does everything, and says who else may."""
    EDITOR = "editor"
    """Changes what runs, and reads it."""
    VIEWER = "viewer"
    """Reads what runs."""
    NODE = "node"
    """An agent: runs what it is told to, and tells of it."""
    CONTROLPLANE = "controlplane"
    """An instance of the control plane."""


PEOPLE = frozenset({Role.ADMIN, Role.EDITOR, Role.VIEWER})

SERVER_NAMES: Mapping[Role, str] = MappingProxyType(
    {Role.CONTROLPLANE: "controlplane.orch", Role.NODE: "node.orch"},
)
"""What the certificates of those who are dialed say that they may be called, by role, and no other's: who dials asks
for this name, whatever address it dialed."""

SERVER_NAME = SERVER_NAMES[Role.CONTROLPLANE]


class Malformed(ValueError):  # noqa: N818 - what it is
    """It is no certificate, token or identity of a cluster; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a certificate says of who holds it."""

    cluster: str
    role: Role
    name: str

    @property
    def member(self) -> str:
        """The name of the member's record: `node:k3f…`, `controlplane:cp1`, `person:ann`. A person changes roles."""
        return member(self.role, self.name)

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


def member(role: Role, name: str) -> str:
    """The name of the record of a member with this role and name."""
    return f"{'person' if role in PEOPLE else role}:{name}"


def role(text: str) -> Role:
    """The role of that name. Raises Malformed."""
    try:
        return Role(text)
    except ValueError:
        raise Malformed(f"{text!r:.40} is no role; roles are {', '.join(Role)}") from None
