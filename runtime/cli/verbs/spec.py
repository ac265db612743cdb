"""`orchrun spec`: write a config.json to begin with, which is the agent's default, for a shell on a terminal."""

import json
import os
from typing import Any

from runtime import defaults, errors
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (
    Flag("--bundle", "-b", value="DIR", help="the folder to write to (the working directory)"),
    Flag("--rootless", help="for the calling user, who need not be root"),
)
ARGUMENTS = "[--bundle DIR]"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Write it, unless there is one."""
    given.take()
    path = os.path.join(given.text("--bundle", "."), "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(_rootless(_config()) if given.on("--rootless") else _config(), file, indent="\t")
            file.write("\n")
    except FileExistsError:
        raise errors.InvalidSpec(f"{path}: exists already; remove it first") from None
    context.report.debug(f"wrote {path}")
    return 0


def _config() -> dict[str, Any]:
    config = defaults.config(["sh"], cgroups_path="", hostname="orchrun")
    del config["linux"]["cgroupsPath"]
    config["root"] = {"path": "rootfs", "readonly": True}
    config["process"]["terminal"] = True
    config["process"]["env"].append("TERM=xterm")
    return config


def _rootless(config: dict[str, Any]) -> dict[str, Any]:
    """Without what an ordinary user cannot have: a network, cgroups, further groups, and ids but the own."""
    linux = config["linux"]
    kinds = [kind for kind in defaults.NAMESPACES if kind not in {"network", "cgroup"}]
    linux["namespaces"] = [{"type": kind} for kind in (*kinds, "user")]
    for name, number in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
        linux[name] = [{"containerID": 0, "hostID": number, "size": 1}]
    for name in ("resources", "sysctl"):
        del linux[name]
    # The host's network is in its /sys, which only the owner of the network may mount anew.
    sys = {"destination": "/sys", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "rro"]}
    mounts = [sys if mount["destination"] == "/sys" else mount for mount in config["mounts"]]
    config["mounts"] = [mount for mount in mounts if mount["destination"] != "/sys/fs/cgroup"]
    for mount in config["mounts"]:
        mount["options"] = [word for word in mount["options"] if not word.startswith("gid=")]
    return config
