"""Read a bundle: its config.json, with the root's path made absolute."""

import os
from typing import Any

from runtime import errors, protocol
from runtime.cli.options import Flag, Options

FLAGS = (
    Flag("--bundle", "-b", value="DIR", help="the bundle, a folder with config.json (the working directory)"),
    Flag("--config", "-f", value="FILE", help="another file than the bundle's config.json"),
)


def load(given: Options) -> tuple[dict[str, Any], str]:
    """The configuration, and the bundle's absolute path; raises InvalidSpec."""
    bundle = os.path.abspath(given.text("--bundle", "."))
    config = read_object(given.text("--config") or os.path.join(bundle, "config.json"))
    root = config.get("root")
    if isinstance(root, dict) and isinstance(root.get("path"), str):
        config["root"] = {**root, "path": os.path.realpath(os.path.join(bundle, root["path"]))}
    return config, bundle


def read_object(path: str) -> dict[str, Any]:
    """The JSON object in a file of the caller's; raises InvalidSpec."""
    try:
        with open(path, "rb") as file:
            return protocol.decode(file.read(protocol.MAX_BODY_BYTES + 1))
    except OSError as error:
        raise errors.InvalidSpec(f"{path}: {error.strerror}") from None
    except errors.ProtocolError as error:
        raise errors.InvalidSpec(f"{path}: {error.message}") from None
