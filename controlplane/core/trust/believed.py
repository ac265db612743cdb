"""Whom nodes may believe, of what the cluster keeps of its members: what agents are told, since they follow no records.

The rule: a certificate is believed that was made since its holder joined. Who was put out is not told of at all, and
who joins again has certificates that are younger than those from before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protos.orch.v1 import trust_pb2 as pb
from trust.core.identity import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """When each of them joined, in milliseconds since 1970: `nodes` by id, `instances` by name."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)


def of(members: Iterable[pb.MemberRecord]) -> Believed:
    """Of the records as they are now. A renewal changes nothing here."""
    known = list(members)
    return Believed(nodes=_joined(known, Role.NODE), instances=_joined(known, Role.CONTROLPLANE))


def _joined(members: Iterable[pb.MemberRecord], role: Role) -> Mapping[str, int]:
    found = ((one.name.partition(":")[2], one.joined_at) for one in members if one.role == role)
    # 0 says that somebody is no member.
    return {name: max(1, joined_at) for name, joined_at in sorted(found)}
