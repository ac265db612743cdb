"""What one registry wants to see in Authorization, found out once and kept.

The rule: the first question goes out without a name. Its 401 says which way in there is (Basic, or Bearer with a token
service); from then on every question carries the header, and a token that is refused or too old is fetched once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from images.registry import challenge as challenges
from images.registry import errors, realms, tokens, transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import aiohttp

    from images.registry import config
    from images.registry.credentials import Credentials, DockerConfig

Scopes = tuple[str, ...]


def scope(repository: str, *actions: str) -> str:
    return f"repository:{repository}:{','.join(actions)}"


class Authorizer:
    """One registry's challenge and tokens; shared by all that is asked of it."""

    def __init__(
        self,
        host: str,
        http: transport.Transport,
        settings: config.Config,
        kept: DockerConfig,
        *,
        given: Credentials | None = None,
    ) -> None:
        """`given` are credentials to try, instead of those that are kept."""
        self._host = host
        self._http = http
        self._config = settings
        self._kept = kept
        self._challenge: challenges.Challenge | None = None
        self._given = given
        self._remembered: Credentials | None = None
        self._tokens: dict[Scopes, tokens.Token] = {}
        self._lock = asyncio.Lock()
        self._resting_until_s = 0.0
        """Until then the token service wants no question, on the monotonic clock."""

    async def _header(self, scopes: Scopes) -> str | None:
        """The header for a question that needs these scopes; None as long as nothing was asked for."""
        if self._challenge is None:
            return None
        async with self._lock:
            if self._challenge.scheme == "basic":
                return await self._basic()
            token = self._tokens.get(scopes)
            if token is None or not token.is_fresh:
                token = await self._ask(scopes)
                self._tokens = {key: other for key, other in self._tokens.items() if other.is_fresh} | {scopes: token}
            return token.header

    @property
    def was_challenged(self) -> bool:
        """Whether the registry has ever asked who we are."""
        return self._challenge is not None

    @contextlib.asynccontextmanager
    async def send(
        self, request: transport.Request, scopes: Scopes, *, time_s: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a question to this registry; a 401 is answered once.

        `time_s` bounds each sending with the block. A keychain, which may ask a person, and a token service have
        bounds of their own.
        """
        for last in (False, True):
            sent = await self._header(scopes)
            async with (
                transport.within(time_s, str(request)),
                self._http.send(replace(request, authorization=sent)) as response,
            ):
                # Where a redirect led to may not tell us how to get in here.
                if response.status == 401 and transport.same_server(str(response.url), request.url):
                    said = response.headers.getall("WWW-Authenticate", [])
                    if await self._challenged(said, scopes, sent=sent) and not last:
                        continue
                yield response
                return

    async def _challenged(self, headers: Iterable[str], scopes: Scopes, *, sent: str | None) -> bool:
        """Take in a 401 to a question that carried `sent`; whether it is worth asking again."""
        found = challenges.choose(challenges.parse(headers))
        if found is None:
            return False
        async with self._lock:
            if self._remembered is not None and sent == self._remembered.basic:
                self._remembered = None
            repeated = self._challenge is not None and self._challenge.scheme == found.scheme
            self._challenge = found
            token = self._tokens.get(scopes)
            if token is not None and token.header == sent:
                del self._tokens[scopes]
        # The same password will be refused again; the same token is one that has expired on their clock.
        return not (repeated and found.scheme == "basic" and sent is not None)

    async def _credentials(self) -> Credentials | None:
        """A keychain may take its time, or ask a person: what it said counts until the registry refuses it."""
        if self._remembered is None:
            self._remembered = self._given or await self._kept.find(self._host)
        return self._remembered

    async def _basic(self) -> str:
        found = await self._credentials()
        if found is None or not found.user:
            message = f"registry {self._host} wants a login"
            raise errors.Unauthorized(f"{message}; log in with `orchctl image login {self._host}`")
        return found.basic

    async def _ask(self, scopes: Scopes) -> tokens.Token:
        assert self._challenge is not None, "tokens are asked for after a challenge"
        parameters = self._challenge.parameters
        question = tokens.Question(
            host=self._host, realm=parameters["realm"], service=parameters.get("service", ""), scopes=scopes
        )
        trust = await self._judge(question.realm)
        self._wait_for_it(question)
        found = await self._credentials() if trust is realms.Trust.CREDENTIALS else None
        try:
            # Once: whoever asks the registry something asks all of it again, this too.
            return await tokens.ask(self._http, question, found, time_s=self._config.bounds.document_s)
        except errors.Unavailable as error:
            self._resting_until_s = time.monotonic() + (error.retry_after_s or 0)
            raise
        except errors.Unauthorized as error:
            self._remembered = None
            if trust is realms.Trust.ANONYMOUS and await self._credentials():
                raise await self._distrusted(question.realm) from error
            raise

    def _wait_for_it(self, question: tokens.Question) -> None:
        """A service that wants to be left alone is, also by those who have not heard it themselves."""
        left_s = self._resting_until_s - time.monotonic()
        if left_s > 0:
            message = f"{question}: wants to be left alone for {left_s:.0f} s more; try again later"
            raise errors.Unavailable(message, retry_after_s=left_s)

    async def _judge(self, realm: str) -> realms.Trust:
        trust = realms.judge(realm, registry=await self._origin(), allowed=self._config.token_realms(self._host))
        if trust is realms.Trust.REFUSED or (self._given and trust is not realms.Trust.CREDENTIALS):
            raise await self._distrusted(realm)
        return trust

    async def _origin(self) -> realms.Origin:
        found = realms.origin(await self._http.base(self._host))
        assert found is not None, "a registry's base is an address of a server"
        return found

    async def _distrusted(self, realm: str) -> errors.Unauthorized:
        """With the remedy, where there is one: nothing that is configured makes us leave TLS."""
        found = realms.origin(realm)
        where = f"at {found}" if found else f"at {realm!r:.100}, which is no address of a server"
        message = f"registry {self._host} sends us for a token to a service {where}, which is not its own"
        allowed = frozenset({str(found)})
        if realms.judge(realm, registry=await self._origin(), allowed=allowed) is not realms.Trust.CREDENTIALS:
            return errors.Unauthorized(f"{message}; it is not asked: ask whoever runs the registry")
        where = f"registries.{self._host}.tokenRealms"
        return errors.Unauthorized(f"{message}; if that is right, name {found} in registries.yaml ({where})")
