"""Founds a cluster: `python -m controlplane.trust.founding`, behind `orchctl cluster init`.

It makes the roots, the first instance's certificate, the first admin's and etcd's, and two tokens; all of it in folders
of this machine. What the store has to know lies in a file until the first instance starts and writes it there, so that
nothing is running while a cluster is founded, and a try that ends in the middle leaves a folder to be removed.

It prints one JSON object: the cluster's id and the tokens.
"""

import argparse
import json
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.core.trust import admission, etcd_flags
from controlplane.trust import storeplace, tokenrecords
from controlplane.trust.membership import FOUNDING, SEALING_KEY, STORE_IDENTITY, STORE_ROOTS
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import certificate, identity, lifetime
from trust.core.identity import Role
from trust.folder import Folder, NotTrusted, material

FIRST_TOKEN_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be founded, with those that are members from the beginning, each with the folder for its certificate.

    `outside`: the store is somebody else's, and how it is reached.
    """

    instances: Sequence["Instance"]
    admin: str
    admins: Folder
    nodes: Sequence["Node"] = ()
    outside: "Outside | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One of the control plane. `member`: the one of etcd that runs beside it; None: the store is somebody else's."""

    name: str
    folder: Folder
    member: etcd_flags.Member | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """An etcd that there is already: its members, whom to believe to be one, and what it knows instances by."""

    endpoints: Sequence[str]
    roots: bytes
    identity: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One that need not join, since it is founded with the cluster."""

    id: str
    name: str
    folder: Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who makes certificates for a cluster: its roots, and what all of them believe (PEM)."""

    cluster: str
    now_ms: int
    root: errands.Root
    store_root: errands.Root
    believed: str
    across: str = ""
    """Leads from the root to the one before it, while that is still believed by some (PEM)."""

    def order(self, asked: str, role: Role, name: str) -> errands.Order:
        """A certificate for a member."""
        called = identity.SERVER_NAMES.get(role)
        wanted = errands.Wanted(
            cluster=self.cluster,
            role=role,
            name=name,
            server=called is not None,
            alternatives=[called] if called is not None else [],
        )
        return errands.Order(asked=asked, wanted=wanted, by=self.root)

    def store_order(self, asked: str, name: str, hosts: Sequence[str] = ()) -> errands.Order:
        """One for the store: an instance's, or a member's, which is asked for at its hosts."""
        wanted = errands.Wanted(
            cluster=self.cluster,
            role=Role.CONTROLPLANE,
            name=name,
            server=bool(hosts),
            alternatives=hosts,
            lifetime_ms=lifetime.STORE_MS,
        )
        return errands.Order(asked=asked, wanted=wanted, by=self.store_root)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """A member that gets its certificate here. `node_name`: what people call it, when it is a node."""

    role: Role
    name: str
    folder: Folder
    node_name: str = ""


def found(plan: Plan, now_ms: int) -> dict[str, str]:
    """Makes everything. Raises NotTrusted when there is a cluster already, or a folder cannot be written."""
    check_empty(plan, "a cluster was founded there; remove it to found another")
    cluster, sealing_key = secrets.token_hex(8), secrets.token_bytes(32)
    root, store_root = errands.roots(cluster, ("cluster", "store"), sealing_key, now_ms)
    made = Issuer(cluster=cluster, now_ms=now_ms, root=root, store_root=store_root, believed=root.certificate)
    for one in plan.instances:
        one.folder.write(SEALING_KEY, sealing_key)
    members = certify(plan, made, sealing_key)
    founding, tokens = _founding(made, members, managed=plan.outside is None)
    for one in plan.instances:
        # Last: an instance that finds it has everything else. Whichever starts first writes it into the store.
        one.folder.write(FOUNDING, founding.SerializeToString())
    return {"cluster": cluster, **tokens}


def check_empty(plan: Plan, why: str) -> None:
    """That nothing is overwritten. Raises NotTrusted."""
    for folder in (*(one.folder for one in plan.instances), plan.admins):
        if not folder.is_empty():
            raise NotTrusted(f"{folder.path} is not empty: {why}")


def certify(plan: Plan, made: Issuer, sealing_key: bytes) -> Sequence[pb.MemberRecord]:
    """The certificates of everybody who is there from the beginning, and of the store; a process makes all of them."""
    holders = [
        *(_Holder(role=Role.CONTROLPLANE, name=one.name, folder=one.folder) for one in plan.instances),
        _Holder(role=Role.ADMIN, name=plan.admin, folder=plan.admins),
        *(_Holder(role=Role.NODE, name=one.id, folder=one.folder, node_name=one.name) for one in plan.nodes),
    ]
    members = [one.member for one in plan.instances if one.member is not None and plan.outside is None]
    made_keys = errands.requests(len(holders) + len(members))
    keys, member_keys = made_keys[: len(holders)], made_keys[len(holders) :]
    orders = [made.order(asked, one.role, one.name) for one, (_, asked) in zip(holders, keys, strict=True)]
    # An instance has one for the store, too, of the same key.
    own = list(zip(plan.instances, keys, strict=False))
    orders += [made.store_order(asked, one.name) for one, (_, asked) in own]
    orders += [
        made.store_order(asked, one.name, one.hosts) for one, (_, asked) in zip(members, member_keys, strict=True)
    ]
    chains = errands.issue_all(orders, sealing_key, made.now_ms)
    first, second = len(holders), len(holders) + len(own)
    given = [chain + made.across for chain in chains[:first]]
    _keep_store(plan, made, [key + chain for (_, (key, _)), chain in zip(own, chains[first:second], strict=True)])
    _keep_members(plan, [(key, chain) for (key, _), chain in zip(member_keys, chains[second:], strict=True)], made)
    for one, (key, _), chain in zip(holders, keys, given, strict=True):
        one.folder.save(material(key.encode(), chain.encode(), made.believed.encode()))
    return [_member(made, one, chain) for one, chain in zip(holders, chains[:first], strict=True)]


def _keep_store(plan: Plan, made: Issuer, identities: Iterable[str]) -> None:
    """What instances are known by to the store, and where it is."""
    outside = plan.outside
    endpoints = (
        list(outside.endpoints)
        if outside is not None
        else [one.member.endpoint for one in plan.instances if one.member is not None]
    )
    for one, identity_ in zip(plan.instances, identities, strict=True):
        one.folder.write(STORE_ROOTS, outside.roots if outside is not None else made.store_root.certificate.encode())
        one.folder.write(STORE_IDENTITY, outside.identity if outside is not None else identity_.encode())
        member = one.member if outside is None else None
        storeplace.save(one.folder, etcd_flags.Place(endpoints=endpoints, member=member))


def _keep_members(plan: Plan, made: Sequence[tuple[str, str]], of: Issuer) -> None:
    """The certificates of etcd's members."""
    instances = [one for one in plan.instances if one.member is not None and plan.outside is None]
    for one, (key, chain) in zip(instances, made, strict=True):
        storeplace.save_member(one.folder, key.encode(), chain.encode(), of.store_root.certificate.encode())


def _member(made: Issuer, holder: _Holder, chain: str) -> pb.MemberRecord:
    facts = certificate.read(chain.encode())
    pin = certificate.read(made.root.certificate.encode()).key_digest
    name = identity.member(holder.role, holder.name)
    member = pb.MemberRecord(name=name, role=holder.role, joined_at=made.now_ms, node_name=holder.node_name)
    return admission.with_key(member, pb.MemberKey(digest=facts.key_digest, expires_at=facts.not_after_ms, root=pin))


def _founding(made: Issuer, members: Sequence[pb.MemberRecord], *, managed: bool) -> tuple[pb.Founding, dict[str, str]]:
    """What the store has to know, and the text of the first tokens."""
    store_root = _record(made.store_root) if managed else None
    trust = pb.TrustRecord(cluster=made.cluster, roots=[_record(made.root)], store_root=store_root)
    pin = certificate.read(made.root.certificate.encode()).key_digest
    tokens = {}
    for role in (Role.NODE, Role.CONTROLPLANE):
        request = pb.CreateTokenRequest(role=role, lifetime=FIRST_TOKEN_MS)
        token, record = tokenrecords.new(role, pin, request, actor="cluster init", now_ms=made.now_ms)
        trust.tokens.append(record)
        tokens[f"{role}_token"] = str(token)
    return pb.Founding(trust=trust, members=members), tokens


def _record(root: errands.Root) -> pb.RootRecord:
    return pb.RootRecord(certificate=root.certificate, sealed_key=root.sealed_key)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why."""
    options = _parser().parse_args(arguments)
    try:
        print(json.dumps(found(plan_of(options), time.time_ns() // 1_000_000)))  # noqa: T201 - it is the answer
    except (NotTrusted, errands.NotMade) as error:
        sys.stderr.write(f"orch-found: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orch-found", description="Founds a cluster on this machine.")
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What says where the first instance is, and who the first admin."""
    parser.add_argument("--name", required=True, help="the first instance's name")
    parser.add_argument("--trust", required=True, type=Path, help="the folder for the instance's certificate")
    parser.add_argument("--admin", required=True, help="who the first admin is")
    parser.add_argument("--admin-trust", required=True, type=Path, help="the folder for the admin's certificate")
    parser.add_argument("--host", default=etcd_flags.LOOPBACK, help="where the other machines reach this one's etcd")
    parser.add_argument("--etcd", action="append", default=[], help="a member of an etcd that there is already")
    parser.add_argument("--etcd-ca", type=Path, help="whom to believe to be one of its members")
    parser.add_argument("--etcd-cert", type=Path, help="what it knows instances by")
    parser.add_argument("--etcd-key", type=Path, help="the key of that")


def plan_of(options: argparse.Namespace) -> Plan:
    """What the arguments say. Raises NotTrusted."""
    for name in (options.name, options.admin):
        if not identity.NAME.fullmatch(name):
            raise NotTrusted(f"{name!r} is no name: a name has {identity.NAME_HINT}")
    outside = outside_of(options)
    member = etcd_flags.at_host(options.name, options.host) if outside is None else None
    return Plan(
        instances=[Instance(name=options.name, folder=Folder(options.trust), member=member)],
        admin=options.admin,
        admins=Folder(options.admin_trust),
        outside=outside,
    )


def outside_of(options: argparse.Namespace) -> Outside | None:
    """The etcd that there is already; None: one is run beside the instance. Raises NotTrusted."""
    files = {"--etcd-ca": options.etcd_ca, "--etcd-cert": options.etcd_cert, "--etcd-key": options.etcd_key}
    if not options.etcd and not any(files.values()):
        return None
    missing = [name for name, given in {"--etcd": options.etcd, **files}.items() if not given]
    if missing:
        raise NotTrusted(
            f"{' and '.join(missing)} must be given, too: an etcd that there is already is spoken to by TLS"
        )
    roots, cert, key = (_content(path) for path in files.values())
    return Outside(endpoints=[storeplace.endpoint(url) for url in options.etcd], roots=roots, identity=key + cert)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotTrusted(f"cannot read {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
