"""Joins another instance of the control plane: `python -m controlplane.trust.join`, behind `orchctl cluster join`.

It gets what an instance has beside its certificate: the key that the cluster's roots are sealed with, and what the
store knows it by. Both come over TLS 1.3 from an instance that the token's pin has vouched for, and go into files that
nobody else can read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.trust.membership import SEALING_KEY, STORE_IDENTITY, STORE_ROOTS
from trust import joining
from trust.folder import Folder, NotTrusted


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why nothing was done."""
    options = _parser().parse_args(arguments)
    folder = Folder(Path(options.trust).absolute())
    wish = joining.Wish(name=options.name, host=options.host)
    try:
        token = joining.said(options.token)
        joined = joining.join(options.door, token, wish, folder, keep=lambda each: _keep(folder, each))
    except (joining.NotJoined, NotTrusted) as error:
        hint = f"\nhint: {error.hint}" if isinstance(error, joining.NotJoined) and error.hint else ""
        sys.stderr.write(f"orchctl: the instance {options.name} did not join: {error}{hint}\n")
        return 1
    sys.stdout.write(
        f"instance {options.name} has joined the cluster {joined.own.identity.cluster}\n"
        f"start it with --name {options.name} --trust {folder.path}\n"
    )
    return 0


def _keep(folder: Folder, joined: joining.Joined) -> None:
    """What else an instance needs. It is there before the certificate is."""
    more = joined.more
    if not more.sealing_key or not more.store_certificate:
        raise joining.NotJoined("the token is for another role", hint="use one for the role controlplane")
    folder.write(SEALING_KEY, more.sealing_key)
    folder.write(STORE_ROOTS, more.store_roots.encode())
    folder.write(STORE_IDENTITY, joined.own.key + more.store_certificate.encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchctl cluster join", description="Joins an instance to a cluster.")
    parser.add_argument("--token", required=True, help="the token, or @FILE")
    parser.add_argument("--door", required=True, metavar="HOST:PORT", help="the door of a control plane")
    parser.add_argument("--trust", required=True, help="the folder for the instance's certificate")
    parser.add_argument("--name", required=True, help="the instance's name")
    parser.add_argument("--host", default="", help="where other machines reach this one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
