"""Starts the member of etcd beside an instance: `python -m controlplane.member --trust DIR --data DIR` becomes etcd.

The rule: what it is told stands in the instance's folder, which founding or joining has filled. Started again, it is
the member that it was: what its data holds comes before what it is told.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.core.trust import etcd_flags
from controlplane.trust import beside, storeplace
from protos import starting
from trust.folder import Folder, NotTrusted

LEAST = (3, 4, 20)
HARMFUL = frozenset({(3, 5, 0), (3, 5, 1), (3, 5, 2)})
"""They lose data when they are killed under load."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, when it cannot become etcd."""
    if arguments is None:
        starting.configured("orch-etcd", sys.argv[1:], _translated)
    options = parser().parse_args(arguments)
    folder = Folder(options.trust.absolute())
    try:
        member = _member(folder)
        _check_version()
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = etcd_flags.command(member, storeplace.member_folder(folder).path, options.data.absolute())
        _note(folder, restarted=options.restarted)
        os.execvp(command[0], list(command))
    except NotTrusted as error:
        sys.stderr.write(f"orch-etcd: {error}\n")
    except FileNotFoundError:
        sys.stderr.write("orch-etcd: etcd is not on PATH; install it (etcd-server on Debian, 3.4.20 or newer)\n")
    except OSError as error:
        sys.stderr.write(f"orch-etcd: cannot use {options.data}: {error.strerror}\n")
    return 1


def _member(folder: Folder) -> etcd_flags.Member:
    member = storeplace.load(folder).member
    if member is None:
        raise NotTrusted(f"{folder.path}: the store of this cluster is run by others; there is no member to start here")
    return member


def _note(folder: Folder, *, restarted: bool) -> None:
    """A member that cannot be noted runs all the same; an exchange of the store's root then asks for a person."""
    try:
        beside.note(folder, restarted=restarted)
    except NotTrusted as error:
        sys.stderr.write(f"orch-etcd: the instance beside it will not know what it was started with: {error}\n")


def _check_version() -> None:
    """Raises NotTrusted when the etcd of this machine will not do."""
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    if why := problem(said):
        raise NotTrusted(f"the etcd of this machine will not do: {why}")


def problem(said: str) -> str:
    """Why an etcd that says this of itself will not do; empty when it will."""
    found = re.search(r"etcd Version: ([0-9]+)\.([0-9]+)\.([0-9]+)", said)
    if found is None:
        return "it does not say which version it is"
    version, text = tuple(map(int, found.groups())), ".".join(found.groups())
    if version in HARMFUL:
        return f"version {text} loses data; install 3.5.3 or later"
    return f"version {text} is older than 3.4.20; install a newer one" if version < LEAST else ""


def parser() -> argparse.ArgumentParser:
    """What may be said, on the command line or in the file."""
    made = argparse.ArgumentParser(
        prog="orch-etcd", description="The member of etcd beside a control plane.", allow_abbrev=False
    )
    made.add_argument(
        "--config", metavar="FILE", help="these options, a key each; what is said here wins over what is said there"
    )
    made.add_argument(
        "--trust", required=True, type=Path, metavar="DIR", help="the control plane's folder of certificates"
    )
    made.add_argument("--data", required=True, type=Path, metavar="DIR", help="the folder for its data")
    made.add_argument(
        "--restarted",
        action="store_true",
        help="whoever starts it starts it again when it ends: the control plane ends it to exchange the store's root",
    )
    return made


def _translated(path: str, text: bytes, others: Sequence[str]) -> Sequence[str]:
    from manifests import configuration
    from manifests.documents import Source

    return configuration.arguments(parser(), Source(name=path, text=text), others)


if __name__ == "__main__":
    sys.exit(main())
