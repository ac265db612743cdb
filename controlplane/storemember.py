"""A member of the store on this machine: `orch-etcd`, which becomes etcd with the flags that the cluster needs.

The rule: nobody has to know etcd's flags. What differs from member to member is told here, and everything else follows:
TLS on every port, and no address that others could reach in the clear.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.core.trust import etcd_flags
from protos import starting

CLIENT_PORT, PEER_PORT = 2379, 2380
QUOTA_BYTES = 8 << 30
_LEAST = (3, 4, 20)
_HARMFUL = {(3, 5, 0), (3, 5, 1), (3, 5, 2)}
"""They lose data when they are killed under load."""


def parser() -> argparse.ArgumentParser:
    """What may be said, on the command line or in the file."""
    made = argparse.ArgumentParser(
        prog="orch-etcd", description="A member of the cluster's store, by etcd.", allow_abbrev=False
    )
    made.add_argument(
        "--config", metavar="FILE", help="these options, a key each; what is said here wins over what is said there"
    )
    made.add_argument("--name", required=True, help="this member's name, unlike any other's")
    made.add_argument("--state", required=True, metavar="DIR", help="the folder with the data")
    made.add_argument(
        "--trust", required=True, metavar="DIR", help="the folder with cert.pem, key.pem and roots.pem of this member"
    )
    made.add_argument(
        "--address", required=True, metavar="HOST", help="where instances and other members reach this one"
    )
    made.add_argument(
        "--member",
        action="append",
        default=[],
        metavar="NAME=HOST",
        help="all members, with this one, when a store is founded or joined (default: this one alone)",
    )
    made.add_argument(
        "--joins", action="store_true", help="whether it joins a store that is there, rather than founding one"
    )
    made.add_argument(
        "--etcd", default="etcd", metavar="FILE", help="the program, 3.4.20 or later (default: %(default)s)"
    )
    return made


def flags(options: argparse.Namespace) -> Sequence[str]:
    """As etcd takes them."""
    host = _bracketed(options.address)
    members = options.member or [f"{options.name}={options.address}"]
    named = [one.partition("=")[::2] for one in members]
    return (
        f"--name={options.name}",
        f"--data-dir={options.state}",
        f"--listen-client-urls=https://{host}:{CLIENT_PORT},https://127.0.0.1:{CLIENT_PORT}",
        f"--advertise-client-urls=https://{host}:{CLIENT_PORT}",
        f"--listen-peer-urls=https://{host}:{PEER_PORT}",
        f"--initial-advertise-peer-urls=https://{host}:{PEER_PORT}",
        "--initial-cluster=" + ",".join(f"{name}=https://{_bracketed(at)}:{PEER_PORT}" for name, at in named),
        f"--initial-cluster-state={'existing' if options.joins else 'new'}",
        # What nobody reads any more goes after an hour; watches that are further behind read everything anew.
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        f"--quota-backend-bytes={QUOTA_BYTES}",
        "--logger=zap",
        "--log-level=warn",
        *etcd_flags.flags(Path(options.trust)),
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def problem(said: str) -> str:
    """Why an etcd that says this of itself will not do; empty when it will."""
    found = re.search(r"etcd Version: ([0-9]+)\.([0-9]+)\.([0-9]+)", said)
    if found is None:
        return "it does not say which version it is"
    version = tuple(map(int, found.groups()))
    text = ".".join(found.groups())
    if version in _HARMFUL:
        return f"version {text} loses data; install 3.5.3 or later"
    return f"version {text} is older than 3.4.20; install a newer one" if version < _LEAST else ""


def main() -> int:
    """The exit code, where it does not become etcd."""
    starting.configured("orch-etcd", sys.argv[1:], _translated)
    options = parser().parse_args()
    try:
        said = subprocess.run([options.etcd, "--version"], capture_output=True, text=True, timeout=30, check=False)
        if why := problem(said.stdout):
            sys.stderr.write(f"orch-etcd: {options.etcd}: {why}\n")
            return starting.WRONG
        os.execvp(options.etcd, [options.etcd, *flags(options)])
    except OSError as error:
        sys.stderr.write(f"orch-etcd: cannot start {options.etcd}: {error.strerror}; install etcd-server\n")
        return starting.WRONG


def _translated(path: str, text: bytes, others: Sequence[str]) -> Sequence[str]:
    from manifests import configuration
    from manifests.documents import Source

    return configuration.arguments(parser(), Source(name=path, text=text), others)


if __name__ == "__main__":
    sys.exit(main())
