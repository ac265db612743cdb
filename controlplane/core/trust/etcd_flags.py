"""How etcd is started so that it speaks TLS 1.3 to instances and to its other members, and to nobody else.

The rule: the store has a root of its own. A certificate of a node or a person is of the cluster's root, which etcd does
not believe: without this, whoever has joined could read and write everything past the control plane.
"""

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from urllib.parse import urlsplit

CLIENT_PORT, PEER_PORT = 2379, 2380
LOOPBACK = "127.0.0.1"

_SUITES = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
"""Of TLS 1.2, and for RSA certificates, of which there are none: only TLS 1.3 is left, whose suites no flag changes.
etcd 3.4 has no flag for the least version, and its HTTP/2 insists on this suite or its ECDSA twin (RFC 7540, 9.2.2)."""

ELECTIONS = (
    # For members on one segment. A new leader of the store gives every lease another whole life and the time of an
    # election: where ours goes with it, 0.75 s + 3 s + 0.5 s pass, and with etcd's own second 5.5 s.
    "--heartbeat-interval=50",
    "--election-timeout=500",
    # Or a member that was cut off makes the others elect anew when it is back.
    "--pre-vote",
)
"""How the members of a cluster elect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the store. `cluster`: the peer URL of each by its name, this one included; `joins`: it comes to a
    store that there is already.
    """

    name: str
    client: str
    peer: str
    cluster: Mapping[str, str]
    joins: bool = False

    @property
    def hosts(self) -> Sequence[str]:
        """Where it is asked for, for its certificate."""
        named = [urlsplit(url).hostname or "" for url in (self.client, self.peer)]
        return list(dict.fromkeys([*named, "localhost", LOOPBACK]))

    @property
    def endpoint(self) -> str:
        """Where instances reach it: `host:port`."""
        return urlsplit(self.client).netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an instance finds the store, as `store.json` of its folder keeps it. `member`: the one that runs beside the
    instance; None where the store is somebody else's.
    """

    endpoints: Sequence[str]
    member: Member | None = None

    def text(self) -> bytes:
        """As the file has it."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def place(text: bytes) -> Place:
    """What the file says. Raises ValueError."""
    try:
        said = json.loads(text)
        member = Member(**said["member"]) if said["member"] is not None else None
        return Place(endpoints=[str(one) for one in said["endpoints"]], member=member)
    except (KeyError, TypeError) as error:
        raise ValueError(f"it does not say where the store is: {error!r}") from error


def at_host(name: str, host: str) -> Member:
    """The first member of a new store, on the usual ports of a machine."""
    shown = f"[{host}]" if ":" in host else host
    peer = f"https://{shown}:{PEER_PORT}"
    return Member(name=name, client=f"https://{shown}:{CLIENT_PORT}", peer=peer, cluster={name: peer})


def joining(name: str, host: str, cluster: Mapping[str, str]) -> Member:
    """A member that comes to a store that there is, with the peer URLs of all, its own included."""
    own = at_host(name, host)
    return Member(name=name, client=own.client, peer=own.peer, cluster=cluster, joins=True)


def command(member: Member, certificates: PurePath, data: PurePath) -> Sequence[str]:
    """The command line of a member, with its folder of certificates and the one for its data."""
    return [
        "etcd",
        f"--name={member.name}",
        f"--data-dir={data}",
        f"--listen-client-urls={','.join(_listens(member.client, beside_loopback=True))}",
        f"--advertise-client-urls={member.client}",
        f"--listen-peer-urls={','.join(_listens(member.peer))}",
        f"--initial-advertise-peer-urls={member.peer}",
        f"--initial-cluster={','.join(f'{name}={url}' for name, url in member.cluster.items())}",
        f"--initial-cluster-state={'existing' if member.joins else 'new'}",
        *ELECTIONS,
        *flags(certificates),
        "--logger=zap",
        "--log-level=warn",
    ]


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


def _listens(url: str, *, beside_loopback: bool = False) -> Sequence[str]:
    """etcd listens on addresses, not on names: a member that is reached by a name listens everywhere."""
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return [f"https://0.0.0.0:{parts.port}"]
    own = [url]
    return own if address.is_loopback or not beside_loopback else [*own, f"https://{LOOPBACK}:{parts.port}"]
