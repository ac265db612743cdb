"""Goes through a cluster's door with a token, and comes back with a certificate.

    1  dial, believing nobody: which roots have you?  ──►  one of them has to be the token's; else nothing is said
    2  dial again, believing that root alone: here is the token, and a request for my key  ──►  the certificate

Two rules. The secret is told to nobody who has not proved to be a control plane of the cluster that the token is of.
And the key is on disk before it is asked for, and waits there until whoever joins has said that all is done
(`Folder.end_join`): wherever a join breaks off, the next try is the same join, which uses nothing up.
"""

import contextlib
import getpass
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protos.orch.v1 import trust_pb2 as pb
from trust import errands, framing
from trust.core import certificate, identity, lifetime, token
from trust.core.identity import Malformed, Role
from trust.folder import PENDING, Folder, Material, material


class NotJoined(Exception):  # noqa: N818 - what happened
    """One line; `hint` is the remedy. Nothing was changed but a key that waits for the next try."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Who wants to join. `host`: where other machines reach an instance's own, and its member of the store."""

    name: str = ""
    node_name: str = ""
    host: str = ""
    member: str = ""
    """A certificate request for the key of that member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What the door answered. `more`: what an instance of the control plane gets beside it."""

    own: Material
    more: pb.JoinResponse


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def said(argument: str) -> str:
    """The token of an argument: itself; or what is in the file behind an @, or the first line of the standard input for
    a dash, since arguments are seen by everybody.

    Raises NotJoined.
    """
    if argument == "-":
        return _asked_for()
    if not argument.startswith("@"):
        return argument
    try:
        return Path(argument[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotJoined(f"cannot read the token from {argument[1:]}: {_reason(error)}") from error


def _asked_for() -> str:
    """At a terminal a person pastes it, and nobody reads it over their shoulder."""
    try:
        text = getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()
    except EOFError:
        text = ""
    if not text.strip():
        raise NotJoined("no token came on the standard input", hint="write it like `echo TOKEN | orchctl … --token -`")
    return text.strip()


def token_of(argument: str, role: Role) -> str:
    """The token of an argument, when it is for this role. Raises NotJoined: nobody is asked, and no use is used up."""
    text = said(argument)
    try:
        given = token.parse(text).role
    except Malformed as error:
        raise NotJoined(str(error)) from error
    if given is not role:
        hint = f"`orchctl cluster token create --role {role}` makes one"
        raise NotJoined(f"the token is for the role {given}, and one for the role {role} is needed here", hint=hint)
    return text


def join(
    door: str,
    text: str,
    wish: Wish,
    folder: Folder,
    now_ms: Callable[[], int] = _clock_ms,
    keep: Callable[[Joined], None] = lambda _: None,
    workshop: errands.Workshop | None = None,
    *,
    anew: bool = False,
) -> Joined:
    """Joins by the door at `host:port`, and keeps the certificate in the folder, last of all: `keep` comes before it.
    `workshop`: one that has been started already, to make the key. `anew`: also where there is a certificate, which
    stays until the new one is there.

    The caller ends the join (`Folder.end_join`) when nothing is left to do. Raises NotJoined, NotTrusted.
    """
    if not anew:
        _check_free(folder, now_ms())
    try:
        shown = token.parse(text)
        pinned = _pinned_root(door, shown, now_ms)
        key, asked = errands.request(folder.pending(), workshop)
        folder.write(PENDING, key.encode())
        request = pb.JoinRequest(
            token=str(shown),
            certificate_request=asked,
            name=wish.name,
            node_name=wish.node_name,
            host=wish.host,
            member_request=wish.member,
        )
        answer = _ask(door, _verifying(pinned), pb.DoorRequest(join=request)).joined
        own = material(key.encode(), answer.certificate.encode(), answer.roots.encode())
    except (Malformed, errands.NotMade) as error:
        raise NotJoined(str(error)) from error
    joined = Joined(own=own, more=answer)
    keep(joined)
    folder.keep(own)
    return joined


def _check_free(folder: Folder, now_ms: int) -> None:
    """That no good certificate is there. One of a join that has not come to its end is that very join's."""
    if not folder.exists() or folder.pending():
        return
    there = folder.load()
    if there.facts.not_after_ms > now_ms:
        text = f"{folder.path} holds the certificate of {there.identity} already"
        raise NotJoined(text, hint="remove the folder to join anew")


def is_of(text: str, there: Material) -> bool:
    """Whether a token is of the cluster that a certificate is of, as far as its roots are known here."""
    pin = token.parse(text).pin
    known = [certificate.of_der(root).key_digest for root in certificate.split(there.roots)]
    return any(token.fits(pin, digest) for digest in known)


def clock_of(door: str) -> int:
    """Milliseconds since 1970, as whoever answers at a door says. It is not believed for more. Raises NotJoined."""
    return _ask(door, _believing_anybody(), pb.DoorRequest(roots=pb.RootsRequest())).roots.now


def _pinned_root(door: str, shown: token.Token, now_ms: Callable[[], int]) -> bytes:
    """The root that the token pins, as DER. The door is not believed until then."""
    answer = _ask(door, _believing_anybody(), pb.DoorRequest(roots=pb.RootsRequest())).roots
    roots = certificate.split(answer.roots.encode())
    found = next((root for root in roots if token.fits(shown.pin, certificate.of_der(root).key_digest)), None)
    if found is None:
        raise NotJoined(
            f"the token is not of the cluster at {door}",
            hint="give the server of the cluster that the token was made in, or make a token there",
        )
    problem = lifetime.clock_problem(now_ms(), answer.now)
    if problem:
        raise NotJoined(problem)
    return found


class _Deadline:
    """Until when an exchange has to be at its end, however little by little the other side sends."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is."""
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _ask(door: str, context: ssl.SSLContext, request: pb.DoorRequest) -> pb.DoorResponse:
    """One request and its answer. Raises NotJoined, with the door's own words when it refuses."""
    answering_s = framing.ANSWER_S if request.HasField("join") else 0
    deadline = _Deadline(framing.TIMEOUT_S + answering_s + framing.TIMEOUT_S)
    with _dialed(door, context, deadline) as link:
        link.settimeout(deadline.left_s())
        link.sendall(framing.pack(request))
        body = _receive(link, framing.length(_receive(link, framing.HEAD_BYTES, deadline)), deadline)
        answer = framing.unpack(pb.DoorResponse, body)
    if answer.WhichOneof("response") == "refusal":
        raise NotJoined(answer.refusal.message, hint=answer.refusal.hint)
    return answer


@contextlib.contextmanager
def _dialed(door: str, context: ssl.SSLContext, deadline: _Deadline) -> Iterator[ssl.SSLSocket]:
    host, _, port = door.rpartition(":")
    where = f"the door of the control plane at {door}"
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=framing.TIMEOUT_S) as plain,
            _secured(plain, context, deadline) as link,
        ):
            yield link
    except ssl.SSLCertVerificationError as error:
        raise NotJoined(f"{where} has no certificate of its own cluster: {error.verify_message}") from error
    # In TLS 1.3 our handshake is over before the other side turns away whoever shows no certificate: it just hangs up.
    except (ssl.SSLError, framing.Broken, BrokenPipeError, ConnectionResetError) as error:
        raise NotJoined(f"{where} does not answer as one: {_reason(error)}", hint=_HINT) from error
    except OSError as error:
        raise NotJoined(f"cannot reach {where}: {_reason(error)}", hint=_HINT) from error


def _secured(plain: socket.socket, context: ssl.SSLContext, deadline: _Deadline) -> ssl.SSLSocket:
    """The handshake as a whole is bounded by the socket's time (`_ssl.c`), as is each later call."""
    plain.settimeout(deadline.left_s())
    return context.wrap_socket(plain, server_hostname=identity.SERVER_NAME)


_HINT = "is it the door's port (7401 unless --door says otherwise), and does the control plane run?"


def _receive(link: ssl.SSLSocket, size: int, deadline: _Deadline) -> bytes:
    received = b""
    while len(received) < size:
        link.settimeout(deadline.left_s())
        part = link.recv(size - len(received))
        if not part:
            raise framing.Broken("it hung up")
        received += part
    return received


def _believing_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _verifying(root: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=root)
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
