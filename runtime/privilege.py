"""Whose privileges this process has: the host's root, or somebody's whose ids mean less. Light to import."""

import os
from typing import Final

_ALL_IDS: Final = ["0", "0", "4294967295"]


def is_host_root() -> bool:
    """Whether this process is root, and not in a user namespace."""
    return os.geteuid() == 0 and not in_user_namespace()


def in_user_namespace() -> bool:
    """Whether the ids of this process are not the machine's."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != _ALL_IDS


def groups_are_fixed() -> bool:
    """Whether setgroups(2) is denied (user_namespaces(7)): a user could leave a group that is forbidden something."""
    with open("/proc/self/setgroups", encoding="ascii") as file:
        return file.read().strip() == "deny"
