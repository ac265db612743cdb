"""How etcd is started so that it speaks TLS 1.3 to instances and to its other members, and to nobody else.

The rule: the store has a root of its own. A certificate of a node or a person is of the cluster's root, which etcd does
not believe: without this, whoever has joined could read and write everything past the control plane.
"""

from collections.abc import Sequence
from pathlib import PurePath

_SUITES = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
"""Of TLS 1.2, and for RSA certificates, of which there are none: only TLS 1.3 is left, whose suites no flag changes.
etcd 3.4 has no flag for the least version, and its HTTP/2 insists on this suite or its ECDSA twin (RFC 7540, 9.2.2)."""


def flags(folder: PurePath) -> Sequence[str]:
    """For an etcd whose `cert.pem`, `key.pem` and `roots.pem` are in a folder."""
    cert, key, roots = (folder / name for name in ("cert.pem", "key.pem", "roots.pem"))
    return (
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={roots}",
        "--client-cert-auth",
        f"--peer-cert-file={cert}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={roots}",
        "--peer-client-cert-auth",
        f"--cipher-suites={_SUITES}",
    )
