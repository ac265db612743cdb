"""`orchrun spec`: write a config.json to begin with, which is the agent's default, for a shell on a terminal."""

import json
import os

from runtime import defaults, errors
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (
    Flag("--bundle", "-b", value="DIR", help="the folder to write to (the working directory)"),
    Flag("--rootless", help="refused: this runtime runs as root"),
)
ARGUMENTS = "[--bundle DIR]"
WORDS_END_FLAGS = False


def run(context: Context, given: Options) -> int:
    """Write it, unless there is one."""
    given.take()
    if given.on("--rootless"):
        raise errors.InvalidSpec("--rootless: is not supported; run as root, with a user namespace in config.json")
    path = os.path.join(given.text("--bundle", "."), "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(_config(), file, indent="\t")
            file.write("\n")
    except FileExistsError:
        raise errors.InvalidSpec(f"{path}: exists already; remove it first") from None
    context.report.debug(f"wrote {path}")
    return 0


def _config() -> dict[str, object]:
    config = defaults.config(["sh"], cgroups_path="", hostname="orchrun")
    del config["linux"]["cgroupsPath"]
    config["root"] = {"path": "rootfs", "readonly": True}
    config["process"]["terminal"] = True
    config["process"]["env"].append("TERM=xterm")
    return config
