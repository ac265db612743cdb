"""A container without a cgroup (`--cgroup-manager disabled`): nothing of it is limited, counted or frozen.

One rule: what was asked for is kept by other means, or refused. Device rules are kept where no device can be opened but
those that the configuration brings: no node can be made, and those that the image holds do not work.
"""

from runtime import capabilities, cgroups, errors, values
from runtime.resources import Resources
from runtime.spec import Spec


def settle(wanted: Spec) -> Spec:
    """The same container without a group; raises InvalidSpec for what needs one."""
    limits = wanted.resources
    kept: Resources = values.replace(limits, devices=())
    cgroups.of("").apply(kept)
    if limits.devices and _can_make_nodes(wanted):
        raise errors.InvalidSpec(
            "linux.resources.devices: needs a cgroup where process.capabilities has CAP_MKNOD, and --cgroup-manager "
            "disabled asks for none; remove the capability, or use cgroupfs"
        )
    return values.replace(wanted, cgroups_path="", resources=kept, root_nodev=bool(limits.devices))


def _can_make_nodes(wanted: Spec) -> bool:
    """In a user namespace nobody can (mknod(2))."""
    given = wanted.process.capabilities
    if wanted.user_namespace is not None:
        return False
    return given is None or bool(given.bounding & 1 << capabilities.NUMBERS["CAP_MKNOD"])
