"""The laboratory's network: a bridge with a cable to each machine, in a network namespace of its own."""

import os
from typing import Final

from deploy.local import network
from deploy.local.processes import Process
from deploy.vmlab import plan
from runtime import syscalls

BRIDGE: Final = "lan0"


def make() -> None:
    """Move to a new network namespace, and make the bridge there with a link for each machine's card."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    network.ip(
        "link set lo up",
        f"link add {BRIDGE} address {network.hardware_address(str(plan.HOST))} type bridge",
        f"addr add {plan.HOST}/{plan.LAN.prefixlen} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        *(f"tuntap add dev {machine.tap} mode tap" for machine in plan.MACHINES),
        *(f"link set {machine.tap} master {BRIDGE} up" for machine in plan.MACHINES),
    )


def of(keeper: Process) -> int:
    """A descriptor of the namespace that the keeper is in; `network.inside` takes one there."""
    return os.open(f"/proc/{keeper.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def prefix(keeper: Process) -> list[str]:
    """What a command has to begin with to be executed on the LAN, as the host 10.77.0.1."""
    return ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", "--"]
