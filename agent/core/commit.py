"""What a container that is to become an image stands on, as the node knows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core import hostfiles, isolation
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A container that has been started. `image`: the digest of its image; `places`: what is mounted on, in it."""

    image: str
    places: tuple[str, ...]
    runs: bool


def places(spec: pb.Container, base: Mapping[str, Any]) -> tuple[str, ...]:
    """The absolute paths that something is mounted on in a container; `base` is the node's own configuration."""
    mounts = isolation.mounts(spec, base.get("mounts", ()))
    own = (hostfiles.HOSTNAME, hostfiles.HOSTS, hostfiles.RESOLV_CONF)
    return (*(str(mount["destination"]) for mount in mounts), *own)
