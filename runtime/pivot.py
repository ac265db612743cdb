"""The step from the host's tree into the container's, which cannot be taken back."""

import errno
import os

from runtime import errors, syscalls


def enter(root: int, propagation: int = 0) -> None:
    """Make the tree the root, and let go of the host's. Both are one folder, so no place for the old root is needed."""
    with errors.step("pivot_root"):
        os.fchdir(root)
        _pivot()
        # The old root now lies on top of the new one; the working directory is still below it.
        syscalls.umount2(".", syscalls.MNT_DETACH)
        os.chdir("/")
    if propagation:
        with errors.step("linux.rootfsPropagation"):  # the kernel moves no root that is shared
            syscalls.mount_setattr(root, propagation=propagation)
    os.close(root)


def _pivot() -> None:
    try:
        syscalls.pivot_root(".", ".")
    except OSError as error:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            if error.errno != errno.EINVAL or not any(" / / " in line and " - rootfs " in line for line in file):
                raise
        # A chroot in its place could be left.
        raise OSError(
            error.errno,
            "this machine's root is the ramdisk that its kernel began with, which cannot be left; have the machine "
            "move to a tmpfs (switch_root) first",
        ) from error
