"""The version of this program."""

from importlib import metadata


def client() -> str:
    """The installed package's version; `unknown` when it runs from a folder that was never installed."""
    try:
        return metadata.version("orch")
    except metadata.PackageNotFoundError:
        return "unknown"
