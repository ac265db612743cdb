"""Tokens of the distribution specification's token services: asked for, and kept until they expire.

With an identity token the question is OAuth2's (POST, `grant_type=refresh_token`), otherwise a GET with Basic
credentials or with none. The rule: scopes are those that we want, never those that a challenge names; a registry could
otherwise have us fetch a token for somebody else's repository, and then be shown it.
"""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import documents
from images import errors as image_errors
from images.registry import answers, errors, realms, transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from images.registry.credentials import Credentials

CLIENT_ID = "orch"
_MAX_TOKEN_BYTES = 1 << 20
_USUAL_LIFE_S = 60
_MAX_LIFE_S = 24 * 3600
_VALUE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=:|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """`expires_at_s` on the monotonic clock, with a margin for the way."""

    value: str
    expires_at_s: float

    @property
    def header(self) -> str:
        return f"Bearer {self.value}"

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self.expires_at_s

    def __repr__(self) -> str:
        return f"Token(…, expires_at_s={self.expires_at_s})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a token is wanted for: the registry's name, the challenge's parameters, and our own scopes."""

    host: str
    realm: str
    service: str
    scopes: tuple[str, ...]

    def __str__(self) -> str:
        return f"token service {self.realm.partition('?')[0]} of registry {self.host}"


async def ask(
    http: transport.Transport, question: Question, credentials: Credentials | None, *, time_s: float
) -> Token:
    """A fresh token. `Unauthorized` when the service wants somebody else, or somebody at all."""
    request = (
        _oauth(question, credentials) if credentials and credentials.identity_token else _get(question, credentials)
    )
    asked_at_s = time.monotonic()
    async with transport.within(time_s, str(request)), http.send(request) as response:
        if response.status in {400, 401, 403}:
            raise _refused(question, credentials)
        await answers.check(response, {200}, what=str(question), host=question.host)
        data = await transport.read(response, limit=_MAX_TOKEN_BYTES, what=str(question))
    return read_token(data, what=str(question), now_s=asked_at_s)


def read_token(data: bytes, *, what: str, now_s: float) -> Token:
    """The token of a service's answer; it counts from when it was asked for, and a tenth of its life is left over."""
    try:
        document = documents.parse(data, what=what)
        value = document.text("token", "") or document.text("access_token", "")
        life_s = min(document.integer("expires_in", _USUAL_LIFE_S), _MAX_LIFE_S)
    except image_errors.InvalidImage as error:
        # The parser's words could quote the token.
        raise errors.BadAnswer(f"{what}: the answer is no token in JSON; is it a token service?") from error
    if not value or not _VALUE.issuperset(value):
        raise errors.BadAnswer(f"{what}: the answer holds no token; is it a token service?")
    return Token(value=value, expires_at_s=now_s + 0.9 * life_s)


def _get(question: Question, credentials: Credentials | None) -> transport.Request:
    pairs = [("service", question.service), *(("scope", scope) for scope in question.scopes)]
    if credentials:
        pairs.append(("account", credentials.user))
    query = urllib.parse.urlencode([pair for pair in pairs if pair[1]])
    joint = "&" if "?" in question.realm else "?"
    return transport.Request(
        method="GET",
        url=f"{question.realm}{joint}{query}",
        host=_settings_host(question),
        authorization=credentials.basic if credentials else None,
    )


def _oauth(question: Question, credentials: Credentials) -> transport.Request:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": credentials.identity_token,
        "service": question.service,
        "client_id": CLIENT_ID,
        "scope": " ".join(question.scopes),
    }
    return transport.Request(
        method="POST",
        url=question.realm,
        host=_settings_host(question),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=lambda: _encoded(form),
    )


def _encoded(form: Mapping[str, str]) -> bytes:
    return urllib.parse.urlencode({key: value for key, value in form.items() if value}).encode()


def _settings_host(question: Question) -> str:
    """Whose TLS settings apply: the registry's where it is its own token service, else those of the realm's host."""
    found = realms.origin(question.realm)
    assert found is not None, "realms.judge lets only addresses of servers through"
    return str(found)


def _refused(question: Question, credentials: Credentials | None) -> errors.Unauthorized:
    if credentials is None:
        return errors.Unauthorized(f"{question} wants a login; log in with `orchctl image login {question.host}`")
    who = f"user {credentials.user!r}" if credentials.user else "the identity token that is kept"
    message = f"{question} does not accept {who}"
    return errors.Unauthorized(f"{message}; log in again with `orchctl image login {question.host}`")
