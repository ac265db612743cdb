"""`orchrun features`: what this runtime does, in the specification's form (features.md), from the parsers' tables."""

import json
import sys
from typing import Any

from runtime import capabilities, mountoptions, state
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options
from runtime.seccomp import profile
from runtime.spec import hooks, namespaces, treatment

FLAGS: tuple[Flag, ...] = ()
ARGUMENTS = ""
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Print it."""
    given.take()
    context.report.debug("features")
    sys.stdout.write(json.dumps(_features(), indent=2) + "\n")
    return 0


def _features() -> dict[str, Any]:
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": state.SPECIFICATION,
        "hooks": list(hooks.NAMES),
        "mountOptions": sorted(mountoptions.known_words()),
        "linux": {
            "namespaces": sorted(namespaces.KINDS),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(profile.ACTIONS),
                "operators": sorted(profile.OPERATORS),
                "archs": sorted(profile.ARCHITECTURES),
                "knownFlags": sorted(profile.FLAGS),
                "supportedFlags": sorted(profile.FLAGS),
            },
            # What the runtime can do, whatever this machine's kernel has (features.md).
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
            "memoryPolicy": {"modes": list(treatment.MEMORY_MODES), "flags": list(treatment.MEMORY_FLAGS)},
        },
    }
