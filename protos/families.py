"""The two families of addresses, for whoever does the same for each.

One rule: what is told of IPv6 has the name of the same for IPv4 with a 6 at its end (`address`, `address6`), and is
empty where the cluster does not have the family.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """IPv4 or IPv6. `suffix` is what the names of its fields end in."""

    version: int
    bits: int
    suffix: str

    @property
    def label(self) -> str:
        """For people."""
        return f"IPv{self.version}"

    def get(self, holder: object, name: str) -> str:
        """What a message or a value of ours says for this family, such as its `address`."""
        return str(getattr(holder, f"{name}{self.suffix}"))

    def set(self, holder: object, name: str, text: str) -> None:
        """Say so."""
        setattr(holder, f"{name}{self.suffix}", text)


V4: Final = Family(version=4, bits=32, suffix="")
V6: Final = Family(version=6, bits=128, suffix="6")
FAMILIES: Final = (V4, V6)


def of(text: str) -> Family:
    """The family of an address, or of a range. Raises ValueError."""
    return V4 if ipaddress.ip_interface(text).version == V4.version else V6


def told(holder: object, name: str) -> tuple[Family, ...]:
    """The families that something is told for: `told(network, "subnet")` are those of a node."""
    return tuple(family for family in FAMILIES if family.get(holder, name))


def every(holder: object, name: str = "address") -> tuple[str, ...]:
    """What is told for any family, IPv4 first."""
    return tuple(text for family in FAMILIES if (text := family.get(holder, name)))


def packed(address: str) -> bytes:
    """An address as packets have it."""
    return ipaddress.ip_address(address).packed


def shown(holder: object, name: str = "address") -> str:
    """All of it, for people."""
    return ", ".join(every(holder, name))


def bracketed(address: str) -> str:
    """As it stands before the colon and the port: fd00::1 → [fd00::1]."""
    return f"[{address}]" if ":" in address else address


def overlapping(networks: Sequence[Network]) -> tuple[Network, Network] | None:
    """Two of them that have addresses in common; None when there are none."""
    for index, one in enumerate(networks):
        for other in networks[index + 1 :]:
            if one.version == other.version and one.overlaps(other):
                return one, other
    return None
