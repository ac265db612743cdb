"""What a local cluster needs of the machine, checked up front, one clear error each."""

import os
import shutil
from typing import Final

from deploy.local import errors, plan
from runtime import cgroups
from runtime.errors import ContainerError

_PROGRAMS: Final = {
    "etcd": "etcd-server",
    "ip": "iproute2",
    "nft": "nftables",
    "setpriv": "util-linux",
}
"""By name, with the Debian package that has it."""
_MAX_NAME: Final = 10  # a link's name, `orch-` before it, has at most 15 bytes


def check(*, name: str, nodes: int, control_planes: int = 1) -> None:
    """LocalError with the first thing that is missing or wrong."""
    if not 1 <= nodes <= plan.MAX_NODES:
        raise errors.LocalError(f"--nodes {nodes}: a local cluster has 1 to {plan.MAX_NODES} nodes")
    if not 1 <= control_planes <= plan.MAX_CONTROL_PLANES:
        raise errors.LocalError(
            f"--control-planes {control_planes}: a local cluster has 1 to {plan.MAX_CONTROL_PLANES} control planes",
            hint="three bear the loss of one, five that of two",
        )
    check_name(name)
    if os.geteuid() != 0:
        raise errors.LocalError(
            "a local cluster needs root: it makes namespaces, links and control groups", hint="run it with sudo"
        )
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise errors.LocalError(
                f"{program} is not on PATH", hint=f"apt-get install {package}, or make setup, which installs everything"
            )
    try:
        cgroups.current_layout().required()
    except ContainerError as error:
        raise errors.LocalError(str(error)) from error


def check_name(name: str) -> None:
    """LocalError when a cluster cannot be called that."""
    if not name.replace("-", "").isalnum() or not name.isascii() or name != name.lower() or len(name) > _MAX_NAME:
        raise errors.LocalError(
            f"--name {name!r}: a cluster's name has up to {_MAX_NAME} small letters, digits and '-'"
        )
