"""Starts the member of etcd beside an instance: `python -m controlplane.member --trust DIR --data DIR` becomes etcd.

The rule: what it is told stands in the instance's folder, which founding or joining has filled. Started again, it is
the member that it was: what its data holds comes before what it is told.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.core.trust import etcd_flags
from controlplane.trust import storeplace
from trust.folder import Folder, NotTrusted


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, when it cannot become etcd."""
    options = parser().parse_args(arguments)
    folder = Folder(options.trust.absolute())
    try:
        member = _member(folder)
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = etcd_flags.command(member, storeplace.member_folder(folder).path, options.data.absolute())
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


def parser() -> argparse.ArgumentParser:
    """Where it finds everything."""
    made = argparse.ArgumentParser(prog="orch-etcd", description="The member of etcd beside a control plane.")
    made.add_argument("--trust", required=True, type=Path, metavar="DIR", help="the folder of the control plane's")
    made.add_argument("--data", required=True, type=Path, metavar="DIR", help="the folder for its data")
    return made


if __name__ == "__main__":
    sys.exit(main())
