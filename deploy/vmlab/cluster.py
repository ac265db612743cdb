"""A cluster on the machines, as an operator makes one: install, found, join, log in."""

from typing import Final

from deploy.vmlab import bundles, commands, plan
from deploy.vmlab.laboratory import Laboratory, Say

_INSTALL_TIMEOUT_S: Final = 900.0


def install(laboratory: Laboratory, release: str, *machines: plan.Machine, say: Say) -> None:
    """Install a release from the bundles' disk, or upgrade to it, on several machines side by side."""
    command = f"{bundles.MOUNT} && /mnt/{release}/install.sh"
    commands.on_all(laboratory, dict.fromkeys(machines, command), "install.sh", timeout_s=_INSTALL_TIMEOUT_S, say=say)
