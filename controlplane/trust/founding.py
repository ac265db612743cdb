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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.core.trust import admission, etcd_flags
from controlplane.trust.membership import FOUNDING, SEALING_KEY, STORE_IDENTITY, STORE_ROOTS, new_token
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import certificate, identity, lifetime
from trust.core.identity import Role
from trust.folder import Folder, NotTrusted, material

FIRST_TOKEN_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be founded. `hosts`: where etcd is asked for; `nodes`: those that are members from the beginning, each
    with the folder for its certificate.
    """

    instance: str
    admin: str
    hosts: Sequence[str]
    own: Folder
    admins: Folder
    nodes: Sequence["Node"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One that need not join, since it is founded with the cluster."""

    id: str
    name: str
    folder: Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a cluster is from the beginning."""

    cluster: str
    now_ms: int
    root: errands.Root
    store_root: errands.Root

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
        """One for the store."""
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
    for folder in (plan.own, plan.admins):
        if folder.path.exists() and any(folder.path.iterdir()):
            raise NotTrusted(f"{folder.path} is not empty: a cluster was founded there; remove it to found another")
    cluster, sealing_key = secrets.token_hex(8), secrets.token_bytes(32)
    root, store_root = errands.roots(cluster, ("cluster", "store"), sealing_key, now_ms)
    made = _Made(cluster=cluster, now_ms=now_ms, root=root, store_root=store_root)
    plan.own.write(SEALING_KEY, sealing_key)
    members = _certify(plan, made, sealing_key)
    founding, tokens = _founding(made, members)
    # Last: an instance that finds it has everything else.
    plan.own.write(FOUNDING, founding.SerializeToString())
    flags = " ".join(etcd_flags.flags(plan.own.path.absolute() / "etcd"))
    return {"cluster": cluster, "etcd_flags": flags, **tokens}


def _certify(plan: Plan, made: _Made, sealing_key: bytes) -> Sequence[pb.MemberRecord]:
    """The certificates of everybody who is there from the beginning, and of etcd; a process makes all of them."""
    holders = [
        _Holder(role=Role.CONTROLPLANE, name=plan.instance, folder=plan.own),
        _Holder(role=Role.ADMIN, name=plan.admin, folder=plan.admins),
        *(_Holder(role=Role.NODE, name=one.id, folder=one.folder, node_name=one.name) for one in plan.nodes),
    ]
    *keys, (etcd_key, etcd_asked) = errands.requests(len(holders) + 1)
    hosts = list(dict.fromkeys([*plan.hosts, "localhost", "127.0.0.1"]))
    orders = [made.order(asked, one.role, one.name) for one, (_, asked) in zip(holders, keys, strict=True)]
    # The instance has one for the store, too, of the same key.
    orders += [made.store_order(keys[0][1], plan.instance), made.store_order(etcd_asked, "etcd", hosts)]
    *chains, in_store, etcd = errands.issue_all(orders, sealing_key, made.now_ms)
    plan.own.write(STORE_ROOTS, made.store_root.certificate.encode())
    plan.own.write(STORE_IDENTITY, (keys[0][0] + in_store).encode())
    _keep_etcd(plan, made, etcd_key, etcd)
    for one, (key, _), chain in zip(holders, keys, chains, strict=True):
        one.folder.save(material(key.encode(), chain.encode(), made.root.certificate.encode()))
    return [_member(made, one, chain) for one, chain in zip(holders, chains, strict=True)]


def _keep_etcd(plan: Plan, made: _Made, key: str, chain: str) -> None:
    """What etcd takes as --cert-file, --key-file and --trusted-ca-file, and the same again for its peers."""
    folder = Folder(plan.own.path / "etcd")
    folder.write("key.pem", key.encode())
    folder.write("cert.pem", chain.encode())
    folder.write("roots.pem", made.store_root.certificate.encode())


def _member(made: _Made, holder: _Holder, chain: str) -> pb.MemberRecord:
    facts = certificate.read(chain.encode())
    pin = certificate.read(made.root.certificate.encode()).key_digest
    name = identity.member(holder.role, holder.name)
    member = pb.MemberRecord(name=name, role=holder.role, joined_at=made.now_ms, node_name=holder.node_name)
    return admission.with_key(member, pb.MemberKey(digest=facts.key_digest, expires_at=facts.not_after_ms, root=pin))


def _founding(made: _Made, members: Sequence[pb.MemberRecord]) -> tuple[pb.Founding, dict[str, str]]:
    """What the store has to know, and the text of the first tokens."""
    trust = pb.TrustRecord(cluster=made.cluster, roots=[_record(made.root)], store_root=_record(made.store_root))
    pin = certificate.read(made.root.certificate.encode()).key_digest
    tokens = {}
    for role in (Role.NODE, Role.CONTROLPLANE):
        request = pb.CreateTokenRequest(role=role, lifetime=FIRST_TOKEN_MS)
        token, record = new_token(role, pin, request, actor="cluster init", now_ms=made.now_ms)
        trust.tokens.append(record)
        tokens[f"{role}_token"] = str(token)
    return pb.Founding(trust=trust, members=members), tokens


def _record(root: errands.Root) -> pb.RootRecord:
    return pb.RootRecord(certificate=root.certificate, sealed_key=root.sealed_key)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why."""
    parser = argparse.ArgumentParser(prog="orch-found", description="Founds a cluster on this machine.")
    parser.add_argument("--name", required=True, help="the first instance's name")
    parser.add_argument("--trust", required=True, type=Path, help="the folder for the instance's certificate")
    parser.add_argument("--admin", required=True, help="who the first admin is")
    parser.add_argument("--admin-trust", required=True, type=Path, help="the folder for the admin's certificate")
    parser.add_argument("--host", action="append", default=[], help="where etcd is asked for; may be repeated")
    options = parser.parse_args(arguments)
    for name in (options.name, options.admin):
        if not identity.NAME.fullmatch(name):
            parser.error(f"{name!r} is no name: a name has {identity.NAME_HINT}")
    plan = Plan(
        instance=options.name,
        admin=options.admin,
        hosts=options.host,
        own=Folder(options.trust),
        admins=Folder(options.admin_trust),
    )
    try:
        print(json.dumps(found(plan, time.time_ns() // 1_000_000)))  # noqa: T201 - it is the answer
    except (NotTrusted, errands.NotMade) as error:
        sys.stderr.write(f"orch-found: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
