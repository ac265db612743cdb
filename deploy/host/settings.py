"""The files in /etc/orch: written with every key that there is, and what a person has set since is kept."""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.host.errors import HostError
from manifests import configuration
from manifests.documents import Source
from manifests.mistakes import InvalidManifest


def write(path: Path, parser: argparse.ArgumentParser, said: Mapping[str, Sequence[str]], opening: str) -> None:
    """Puts these values into the file, beside those that it has for other keys. HostError when it cannot be."""
    text = configuration.written(parser, {**there(path, parser), **said}, opening)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is a descriptor
            file.write(text)
            os.fchmod(file.fileno(), 0o644)  # there are no secrets in it
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error


def there(path: Path, parser: argparse.ArgumentParser) -> Mapping[str, Sequence[str]]:
    """What stands there by now; nothing where there is no file. HostError when it cannot be read."""
    try:
        return configuration.values(parser, Source(name=str(path), text=path.read_bytes()))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    except InvalidManifest as error:
        raise HostError(str(error), hint=f"mend {path}, or remove it, and try again") from error
