"""A certificate of one's own made anew, and the root exchanged: `orchctl login --renew` and `cluster rotate-ca`."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from orchctl import client, errors, membership, options, terminal, who
from protos.orch.v1 import trust_pb2 as pb
from trust import errands, framing
from trust.folder import Folder, NotTrusted, material

POLL_S = 0.5

T = TypeVar("T")


def renew(settings: options.Settings) -> None:
    """Another certificate for whoever is logged in, for a new key."""
    if settings.trust is None:
        raise errors.InvalidInput("nobody is logged in to this context", hint=who.LOGIN)
    folder = Folder(settings.trust)
    key, asked = errands.request()
    with membership.dialed(settings) as stub:
        made = stub.Renew(pb.RenewRequest(certificate_request=asked), timeout=client.CALL_TIMEOUT_S)
    folder.save(material(key.encode(), made.certificate.encode(), made.roots.encode()))
    with membership.dialed(settings) as stub:  # with the new one
        stub.Confirm(pb.ConfirmRequest(), timeout=client.CALL_TIMEOUT_S)


def renew_patiently(settings: options.Settings) -> None:
    """As long as one who joins is waited for: in the middle of an exchange of the root the store may start anew."""
    _patiently(lambda: renew(settings), terminal.now_ms() + int(framing.ANSWER_S * 1000))


def renew_in_passing(settings: options.Settings) -> None:
    """After a command that went well: when it does not work, the next one tries it again."""
    try:
        renew(settings)
    except (errors.OrchctlError, errands.NotMade, NotTrusted) as error:
        terminal.note(f"the certificate could not be renewed: {error}")


def rotate_root(settings: options.Settings, *, begin: bool, left_behind: Sequence[str], timeout_ms: int) -> None:
    """Has the roots exchanged, the cluster's and the store's, and waits until the old ones are dropped."""
    deadline_ms = terminal.now_ms() + timeout_ms
    request = pb.RotateRootRequest(begin=begin, left_behind=left_behind)
    answer = _rotating(settings, request) if begin else _patiently(lambda: _rotating(settings, request), deadline_ms)
    if begin:
        terminal.note("the new root issues; everybody gets a certificate of it")
    answer, waited_for = _followed(settings, answer, left_behind, deadline_ms)
    if answer.rotating:
        raise errors.NotDone(
            f"the exchange of the root waits for {len(answer.waiting_for)} members",
            details=list(answer.waiting_for),
            hint="people run `orchctl login --renew`; who does not come any more is left with --leave-behind MEMBER",
        )
    if waited_for:
        _patiently(lambda: renew(settings), deadline_ms)  # the old root is believed no more here, either
    if answer.store:
        raise errors.NotDone(
            f"the exchange of the store's root is not at its end: {_store_progress(answer)}",
            details=list(answer.store_waiting_for),
            hint="look again with --status; `orchctl cluster member revoke` takes out an instance that is gone",
        )
    terminal.say("there is one root; every token is worthless: make others with `orchctl cluster token create`")


def _followed(
    settings: options.Settings, answer: pb.RotateRootResponse, left_behind: Sequence[str], deadline_ms: int
) -> tuple[pb.RotateRootResponse, bool]:
    """How far it is when both are done, or the time is over; and whether whoever looks was waited for."""
    request, told, waited_for = pb.RotateRootRequest(left_behind=left_behind), "", False
    own = who.material()
    while True:
        if own is not None and own.identity.member in answer.waiting_for:
            waited_for = True
            renew_in_passing(settings)
        if not (answer.rotating or answer.store) or terminal.now_ms() >= deadline_ms:
            return answer, waited_for
        if (progress := _store_progress(answer)) != told:
            terminal.note(progress)
            told = progress
        time.sleep(POLL_S)
        answer = _patiently(lambda: _rotating(settings, request), deadline_ms)


def _rotating(settings: options.Settings, request: pb.RotateRootRequest) -> pb.RotateRootResponse:
    with membership.dialed(settings) as stub:
        return stub.RotateRoot(request, timeout=client.CALL_TIMEOUT_S)


def _patiently(do: Callable[[], T], deadline_ms: int) -> T:
    """Again while nobody can answer, as when the only member of etcd is started anew."""
    while True:
        try:
            return do()
        except (errors.Unreachable, errors.StoreSilent) as error:
            if terminal.now_ms() >= deadline_ms:
                raise
            terminal.note(f"not answered now: {error}")
            time.sleep(POLL_S)


def _store_progress(answer: pb.RotateRootResponse) -> str:
    """Such as `members of etcd are started anew with the store's new root alone, one at a time; left: 2`."""
    match answer.store:
        case pb.ROTATION_PHASE_REISSUING:
            text = "instances get certificates of the store's new root"
        case pb.ROTATION_PHASE_DROPPING:
            text = "members of etcd are started anew with the store's new root alone, one at a time"
        case _:
            return "the store has one root"
    return f"{text}; left: {len(answer.store_waiting_for)}"
