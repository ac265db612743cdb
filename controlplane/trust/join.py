"""Joins another instance of the control plane: `python -m controlplane.trust.join`, behind `orchctl cluster join`.

It gets what an instance has beside its certificate: the key that the cluster's roots are sealed with, and what the
store knows it by. Both come over TLS 1.3 from an instance that the token's pin has vouched for, and go into files that
nobody else can read.
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.core.trust import etcd_flags
from controlplane.trust import storeplace
from controlplane.trust.membership import SEALING_KEY, STORE_IDENTITY, STORE_ROOTS
from trust import errands, joining
from trust.folder import Folder, NotTrusted


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why nothing was done."""
    options = _parser().parse_args(arguments)
    folder = Folder(Path(options.trust).absolute())
    try:
        member_key, member_request = errands.request()
        wish = joining.Wish(name=options.name, host=options.host or _own_address(options.door), member=member_request)
        token = joining.said(options.token)
        joined = joining.join(
            options.door, token, wish, folder, keep=lambda each: _keep(folder, each, wish, member_key)
        )
    except (errands.NotMade, joining.NotJoined, NotTrusted) as error:
        hint = f"\nhint: {error.hint}" if isinstance(error, joining.NotJoined) and error.hint else ""
        sys.stderr.write(f"orchctl: the instance {options.name} did not join: {error}{hint}\n")
        return 1
    managed = bool(joined.more.member_certificate)
    sys.stdout.write(
        f"instance {options.name} has joined the cluster {joined.own.identity.cluster}\n"
        + (
            f"start its etcd with:\n  orch-etcd --trust {folder.path} --data {folder.path.with_name('etcd')}\n"
            if managed
            else ""
        )
        + f"start it with:\n  orch-controlplane --name {options.name} --trust {folder.path} \\\n"
        f"  --listen {wish.host}:7400 --advertise {wish.host}:7400 --door {wish.host}:7401 "
        f"--state {folder.path.with_name('state')}\n"
    )
    folder.end_join()
    return 0


def _keep(folder: Folder, joined: joining.Joined, wish: joining.Wish, member_key: str) -> None:
    """What else an instance needs. It is there before the certificate is."""
    more = joined.more
    if not more.sealing_key:
        raise joining.NotJoined("the token is for another role", hint="use one for the role controlplane")
    folder.write(SEALING_KEY, more.sealing_key)
    folder.write(STORE_ROOTS, more.store_roots.encode())
    folder.write(STORE_IDENTITY, more.store_identity or joined.own.key + more.store_certificate.encode())
    member = None
    if more.member_certificate:
        member = etcd_flags.joining(more.member_name, wish.host, dict(more.member_cluster))
        roots = more.store_roots.encode()
        storeplace.save_member(folder, member_key.encode(), more.member_certificate.encode(), roots)
    storeplace.save(folder, etcd_flags.Place(endpoints=list(more.store_endpoints), member=member))


def _own_address(door: str) -> str:
    """The address that this machine reaches the door from. Raises NotJoined."""
    host, _, port = door.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # no packet is sent
            return str(probe.getsockname()[0])
    except (OSError, ValueError) as error:
        raise joining.NotJoined(f"cannot find the way to {door}: {error}", hint="give --host") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchctl cluster join", description="Joins an instance to a cluster.")
    parser.add_argument("--token", required=True, help="the token, @FILE, or - to read it")
    parser.add_argument("--door", required=True, metavar="HOST:PORT", help="the door of a control plane")
    parser.add_argument("--trust", required=True, help="the folder for the instance's certificate")
    parser.add_argument("--name", required=True, help="the instance's name")
    parser.add_argument(
        "--host", default="", help="where other machines reach this one (default: by which it reaches the door)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
