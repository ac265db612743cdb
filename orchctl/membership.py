"""Founding a cluster, logging in, and who may join: what stands behind `orchctl cluster` and `orchctl login`."""

import datetime as dt
import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl import client, config, door, errors, options, tables, terminal
from protos import units
from protos.orch.v1 import trust_pb2 as pb
from protos.orch.v1 import trust_pb2_grpc
from trust import joining
from trust.folder import Folder, NotTrusted

if TYPE_CHECKING:
    from protos.orch.v1.trust_pb2_grpc import TrustStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """What `cluster init` was told."""

    name: str
    trust: Path
    admin: str
    host: str
    server: str
    context: str
    etcd: Sequence[str] = ()
    """Arguments about an etcd that there is already."""


def init(wish: Founding) -> None:
    """Founds a cluster on this machine, and makes the context of its first admin."""
    server = config.parse_server(wish.server, "--server")
    folder = config.trust_folder(wish.context)
    answer = found(wish, folder)
    use(wish.context, server, folder)
    terminal.say(f"cluster {answer['cluster']} is founded, and context {wish.context} is used now")
    _tell_starts(wish, server)
    terminal.say(f"\nfor 24 hours, nodes join with the token\n  {answer['node_token']}")
    terminal.say(f"and further control planes with\n  {answer['controlplane_token']}")


def found(wish: Founding, admins: Path) -> dict[str, str]:
    """Makes the certificates of the control plane, and the admin's in another folder; the cluster's id and tokens."""
    answer: dict[str, str] = json.loads(door.ask("controlplane.trust.founding", *_arguments(wish, admins)))
    return answer


def _arguments(wish: Founding, folder: Path) -> Sequence[str]:
    return [
        f"--name={wish.name}",
        f"--trust={wish.trust}",
        f"--admin={wish.admin or getpass.getuser()}",
        f"--admin-trust={folder}",
        *([f"--host={wish.host}"] if wish.host else []),
        *wish.etcd,
    ]


def _tell_starts(wish: Founding, server: str) -> None:
    trust = wish.trust.absolute()
    if not wish.etcd:
        terminal.say(f"\nstart its etcd with:\n  orch-etcd --trust {trust} --data {trust.with_name('etcd')}")
    terminal.say(f"\nstart the first control plane with:\n  orch-controlplane --name {wish.name} --trust {trust} \\")
    terminal.say(
        f"  --listen {server} --advertise {server} --door {_host(server)}:7401 --state {trust.with_name('state')}"
    )


def restore(wish: Founding, path: Path) -> None:
    """Makes a control plane of a backup, on this machine, and the context of an admin."""
    server = config.parse_server(wish.server, "--server")
    folder = config.trust_folder(wish.context)
    said = restored(wish, path, folder)
    use(wish.context, server, folder)
    terminal.say(f"{said}, and context {wish.context} is used now")
    _tell_starts(wish, server)
    terminal.say(
        "\nnodes that know another address of it are to be told this one: start their agents with --server, too"
    )
    terminal.say("the other control planes join anew, when this one runs, with empty folders and a token")


def restored(wish: Founding, path: Path, admins: Path) -> str:
    """Makes certificates of a backup: a control plane's, and the admin's in another folder. What that has made."""
    answer = json.loads(door.ask("controlplane.trust.restore", str(path), *_arguments(wish, admins)))
    return f"cluster {answer['cluster']} is restored as of revision {answer['revision']} ({answer['made_at']})"


def login(token: str, at: str, server: str, context: str) -> None:
    """Trades a token for a certificate, and makes its context the current one."""
    address = config.parse_server(server or _host(at), "--server")
    folder = Folder(config.trust_folder(context))
    try:
        joined = joining.join(at, joining.said(token), joining.Wish(), folder, anew=True)
    except joining.NotJoined as error:
        raise errors.Refused(error.message, hint=error.hint) from error
    except NotTrusted as error:
        raise errors.OrchctlError(str(error)) from error
    use(context, address, folder.path)
    terminal.say(f"logged in as {joined.own.identity}; context {context} is used now")
    folder.end_join()


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def use(context: str, server: str, trust: Path) -> None:
    """Makes a context, and the current one."""
    path = config.default_path()
    config.save(path, config.load(path).with_context(context, server, trust).using(context))


# Tokens and members -----------------------------------------------------------------------------------------------


@contextmanager
def dialed(settings: options.Settings) -> Iterator["TrustStub"]:
    """Whom the control plane is asked about members, tokens and roots with, on a connection of its own."""
    with client.dialed(settings.server) as channel:
        yield trust_pb2_grpc.TrustStub(channel)


def list_tokens(settings: options.Settings) -> None:
    """A table of them."""
    with dialed(settings) as stub:
        listed = stub.ListTokens(pb.ListTokensRequest(), timeout=client.CALL_TIMEOUT_S).tokens
    if not listed:
        terminal.note("no tokens")
        return
    titles = ["ID", "ROLE", "PERSON", "NAMESPACES", "USES LEFT", "EXPIRES", "MADE BY"]
    for line in tables.table(titles, [_token_row(one) for one in listed]):
        terminal.say(line)


def _token_row(one: pb.TokenRecord) -> list[str]:
    left = one.expires_at - terminal.now_ms()
    expires = "never" if not one.expires_at else f"in {units.format_duration(left)}" if left > 0 else "expired"
    uses = "any" if one.unlimited else str(one.uses_left)
    spaces = ",".join(one.namespaces) or "-"
    return [
        terminal.one_line(cell) for cell in (one.id, one.role, one.person or "-", spaces, uses, expires, one.created_by)
    ]


def create_token(settings: options.Settings, request: pb.CreateTokenRequest) -> None:
    """Makes one and prints it, alone on its line, so that a script can take it."""
    with dialed(settings) as stub:
        made = stub.CreateToken(request, timeout=client.CALL_TIMEOUT_S)
    terminal.say(made.token)
    terminal.note(f"token {made.record.id} for the role {made.record.role}; it is shown this once")


def rotate_token(settings: options.Settings, token_id: str) -> None:
    """Makes an equal one, and the old one worthless, in one moment."""
    with dialed(settings) as stub:
        listed = stub.ListTokens(pb.ListTokensRequest(), timeout=client.CALL_TIMEOUT_S).tokens
    old = next((one for one in listed if one.id == token_id), None)
    if old is None:
        raise errors.NotFound(f"there is no token {token_id!r}", hint="`orchctl cluster token ls` lists them")
    if old.expires_at and old.expires_at <= terminal.now_ms():
        raise errors.InvalidInput(f"token {token_id} has expired", hint="make another: `orchctl cluster token create`")
    if not old.unlimited and not old.uses_left:  # no uses are any number of them
        raise errors.InvalidInput(f"token {token_id} is used up", hint="make another: `orchctl cluster token create`")
    request = pb.CreateTokenRequest(
        role=old.role,
        lifetime=old.expires_at - terminal.now_ms() if old.expires_at else 0,
        uses=0 if old.unlimited else old.uses_left,
        person=old.person,
        namespaces=old.namespaces,
        replaces=old.id,
    )
    create_token(settings, request)


def revoke_token(settings: options.Settings, token_id: str) -> None:
    """Makes one worthless."""
    with dialed(settings) as stub:
        stub.RevokeToken(pb.RevokeTokenRequest(id=token_id), timeout=client.CALL_TIMEOUT_S)
    terminal.say(f"token {token_id} is revoked; who has joined with it stays")


def list_members(settings: options.Settings) -> None:
    """A table of everybody who holds a certificate."""
    with dialed(settings) as stub:
        listed = stub.ListMembers(pb.ListMembersRequest(), timeout=client.CALL_TIMEOUT_S).members
    for line in tables.table(["NAME", "ROLE", "NODE", "NAMESPACES", "EXPIRES"], [_member_row(one) for one in listed]):
        terminal.say(line)


def _member_row(one: pb.MemberRecord) -> list[str]:
    left = max((key.expires_at for key in one.keys), default=0) - terminal.now_ms()
    expires = f"in {left // 86_400_000} days" if left > 0 else "expired"
    cells = (one.name, one.role, one.node_name or "-", ",".join(one.namespaces) or "-", expires)
    return [terminal.one_line(cell) for cell in cells]


def revoke_member(settings: options.Settings, name: str) -> None:
    """Takes somebody out."""
    with dialed(settings) as stub:
        stub.RevokeMember(pb.RevokeMemberRequest(name=name), timeout=client.CALL_TIMEOUT_S)
    terminal.say(f"{name} is out: what they had open has ended, and their certificates are worth nothing")


def show_audit(settings: options.Settings, since_ms: int) -> None:
    """Who changed what, or tried to; the newest last."""
    with dialed(settings) as stub:
        listed = stub.ListAudit(pb.ListAuditRequest(since=since_ms), timeout=client.CALL_TIMEOUT_S).entries
    if not listed:
        terminal.note("nobody has changed anything")
        return
    titles = ["WHEN", "WHO", "ROLE", "CALL", "OBJECTS", "BY", "REFUSED"]
    for line in tables.table(titles, [_audit_row(one) for one in listed]):
        terminal.say(line)


_STEPS = {
    pb.AUDIT_STEP_BEGUN: " begun",
    pb.AUDIT_STEP_ENDED: " ended",
    pb.AUDIT_STEP_BROKEN_OFF: " broken off",
}


def _audit_row(one: pb.AuditRecord) -> list[str]:
    when = dt.datetime.fromtimestamp(one.at / 1000, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    call = f"{one.call}{_STEPS.get(one.step, '')}"
    cells = (when, one.who, one.role, call, ", ".join(one.objects) or "-", one.instance, one.refused or "-")
    return [terminal.one_line(cell) for cell in cells]
