"""What a laboratory consists of: its machines with their addresses, and where its files are."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COUNT: Final = 3
MEMORY_MB: Final = 1280
LAN: Final = ipaddress.IPv4Network("10.77.0.0/24")
"""In a namespace of its own, so that it may be the same on every host, and stand in an image."""
HOST: Final = LAN[1]
_FIRST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One of the machines, numbered from 1."""

    number: int

    @property
    def name(self) -> str:
        """Its host name."""
        return f"vm{self.number}"

    @property
    def address(self) -> str:
        """Its address on the LAN."""
        return str(LAN[_FIRST + self.number])

    @property
    def tap(self) -> str:
        """The link on the LAN's bridge that is its cable."""
        return f"tap{self.number}"

    @property
    def hardware_address(self) -> str:
        """The same after every boot, as a real card's."""
        return f"02:6c:0a:4d:00:{_FIRST + self.number:02x}"

    @property
    def identity(self) -> str:
        """What systemd calls the machine's id: 32 hexadecimal digits (machine-id(5))."""
        return f"{self.number:032x}"


MACHINES: Final = tuple(Machine(number=number) for number in range(1, COUNT + 1))


def machine(number: int) -> Machine:
    """Raises ValueError when there is none of that number."""
    if not 1 <= number <= COUNT:
        raise ValueError(f"there is no machine {number}: they are numbered from 1 to {COUNT}")
    return MACHINES[number - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders. `cache` outlives a laboratory; `run` belongs to the one that is up, or was last."""

    cache: Path

    @property
    def run(self) -> Path:
        """Overlays, consoles, logs, the keeper's record."""
        return self.cache / "run"

    def overlay(self, machine: Machine) -> Path:
        """What a machine has written to its disk."""
        return self.run / f"{machine.name}.qcow2"

    def console(self, machine: Machine) -> Path:
        """What a machine has printed on its serial line."""
        return self.run / f"{machine.name}.console"

    def log(self, name: str) -> Path:
        """What a program on the host has printed: `keeper`, `vm1`, …."""
        return self.run / f"{name}.log"


def places() -> Places:
    """$XDG_CACHE_HOME/orch-vmlab, or /var/cache/orch-vmlab: the machines are root's."""
    return Places(cache=Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache").absolute() / "orch-vmlab")
