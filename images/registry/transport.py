"""HTTP as registries are spoken to with it; the one module that knows aiohttp.

Rules. An Authorization header goes to the origin that it was made for and to no other: the first redirect to another
one drops it for good. Nothing leads from TLS to plain HTTP. Cookies, `.netrc` and content encodings are not used.
Whatever aiohttp raises leaves here as an error of `errors`, with the request in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yarl

from images.registry import config, errors, realms, tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

MAX_REDIRECTS = 8
_REDIRECTS = {301, 302, 303, 307, 308}
# Big enough that a worker thread has something to do; what a cut finds in the buffer is lost, and fetched again.
READ_BYTES = 128 << 10
USER_AGENT = "orch"
MAX_HEADERS = 128
MAX_HEADER_BYTES = 8190
_NAMES = "check the name, HTTP_PROXY and HTTPS_PROXY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question. `host` is the registry's name, which says whose TLS settings apply at the URL's own origin.

    `body` makes the body anew for each sending. With one that takes long, `unhurried` leaves the bound on the time
    until the answer begins to the caller; once all is sent, the answer may take `answer_s` instead of the usual time.
    """

    method: str
    url: str
    host: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str | None = None
    body: Callable[[], Any] | None = None
    unhurried: bool = False
    answer_s: float | None = None

    def __str__(self) -> str:
        shown = self.url.partition("?")[0]  # a query may hold a signature
        return f"registry {self.host}: {self.method} {shown}"


class Transport:
    """Connections to any number of registries; use it as an async context manager."""

    def __init__(self, settings: config.Config) -> None:
        self._config = settings
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._schemes: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def base(self, host: str) -> str:
        """`https://SERVER` of a registry, or `http://SERVER` where that is allowed."""
        server = config.server_of(host)
        if realms.origin(f"https://{server}") is None:
            raise errors.Unreachable(f"registry {host}: is no name or address with a port up to 65535; check the name")
        if host not in self._schemes:
            self._schemes[host] = await self._scheme(host, server)
        return f"{self._schemes[host]}://{server}"

    @contextlib.asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status; GET and HEAD follow redirects. What reading it raises is ours as well."""
        with telling(request):
            # Headers that come one by one, each in time, must end as well.
            async with asyncio.timeout(None if request.unhurried else self._config.bounds.document_s):
                with _addressing(request):
                    response = await self._follow(request)
            try:
                yield response
            except BaseException:
                response.close()
                raise
            # A body that was not read to its end would hold the connection: it is cheaper to close that.
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _follow(self, request: Request) -> aiohttp.ClientResponse:
        url, authorization = yarl.URL(request.url, encoded=True), request.authorization
        first = realms.origin(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._once(request, url, authorization, at_home=realms.origin(str(url)) == first)
            if response.status not in _REDIRECTS or request.method not in {"GET", "HEAD"}:
                return response
            response.close()
            url = _next(request, url, response)
            if realms.origin(str(url)) != first:
                authorization = None
        raise errors.BadAnswer(f"{request}: more than {MAX_REDIRECTS} redirects; the registry is set up in a circle")

    async def _once(
        self, request: Request, url: yarl.URL, authorization: str | None, *, at_home: bool
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "a transport is used inside its block"
        headers = dict(request.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        return await self._session.request(
            request.method,
            url,
            headers=headers,
            data=request.body() if request.body else None,
            allow_redirects=False,
            ssl=self._context(request.host if at_home else url.authority) if url.scheme == "https" else True,
            proxy=proxy_for(url),
            timeout=self._timeout(request.answer_s or self._config.bounds.silence_s),
        )

    def _timeout(self, silence_s: float) -> aiohttp.ClientTimeout:
        # Who is patient how long with a whole transfer is the business of whoever makes it.
        return aiohttp.ClientTimeout(total=None, sock_connect=self._config.bounds.connect_s, sock_read=silence_s)

    def _context(self, host: str) -> ssl.SSLContext:
        if host not in self._contexts:
            self._contexts[host] = tls.context(host, self._config.of(host))
        return self._contexts[host]

    async def _scheme(self, host: str, server: str) -> str:
        registry = self._config.of(host)
        if registry.insecure:
            return "http"
        if registry.ca or not config.is_loopback(host):
            return "https"
        url = yarl.URL(f"https://{server}")
        assert url.host is not None and url.port is not None, "a registry's name has a host"  # noqa: PT018
        return "https" if await tls.is_spoken(url.host, url.port) else "http"


def _next(request: Request, url: yarl.URL, response: aiohttp.ClientResponse) -> yarl.URL:
    """Where a redirect leads; `BadAnswer` where nobody should go."""
    location = response.headers.get("Location", "")
    target = leads_to(url, location)
    if target is None:
        raise errors.BadAnswer(f"{request}: redirected to {location!r:.200}, which is no address of a server")
    if url.scheme == "https" and target.scheme == "http":
        raise errors.BadAnswer(
            f"{request}: redirected from TLS to plain HTTP at {target.host}; the registry is misconfigured"
        )
    return target


def leads_to(url: yarl.URL, location: str) -> yarl.URL | None:
    """The address that a Location header in the answer of `url` means; None when it is none of a server."""
    try:
        target = url.join(yarl.URL(location, encoded=True))
        return target if location and realms.origin(str(target)) else None
    except ValueError:  # also from str(): a port is looked at when it is needed
        return None


def server(url: str) -> str:
    """`host[:port]` of a URL; `BadAnswer` when it is not one of a server."""
    found = realms.origin(url)
    if found is None:
        raise errors.BadAnswer(f"{url!r:.200} is no address of a server; the registry is misconfigured")
    return str(found)


def same_server(url: str, other: str) -> bool:
    return realms.origin(url) == realms.origin(other) is not None


def proxy_for(url: yarl.URL) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; never one for this machine itself."""
    if config.is_loopback(url.authority) or urllib.request.proxy_bypass(url.authority):
        return None
    return urllib.request.getproxies().get(url.scheme)


async def read(response: aiohttp.ClientResponse, *, limit: int, what: str) -> bytes:
    """The whole body; `BadAnswer` as soon as it is known to be larger than the limit."""
    announced = response.content_length
    if announced is not None and announced > limit:
        raise errors.BadAnswer(f"{what}: announces {announced} bytes; the bound is {limit}")
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise errors.BadAnswer(f"{what}: more than {limit} bytes; such an answer is refused")
    return bytes(data)


@contextlib.contextmanager
def telling(request: Request) -> Iterator[None]:
    """Turn aiohttp's errors into ours."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise errors.Unreachable(f"{request}: nobody answers; check the name, the port and the proxy") from error
    except TimeoutError as error:  # before the connection's errors: aiohttp's timeouts are both
        raise errors.Unavailable(f"{request}: no answer in time; try again later") from error
    except aiohttp.ClientSSLError as error:
        raise errors.Untrusted(f"registry {request.host}: {_tls_reason(error)}") from error
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or str(error.os_error)
        raise errors.Unreachable(f"{request}: {reason}; check the name, the port and the proxy") from error
    except aiohttp.InvalidURL as error:
        raise errors.Unreachable(f"{request}: {error} is no address; {_NAMES}") from error
    except aiohttp.ClientHttpProxyError as error:
        raise errors.Unreachable(f"{request}: {error}; check HTTP_PROXY and HTTPS_PROXY") from error
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError) as error:
        raise errors.Unavailable(f"{request}: the connection was cut ({error}); try again later") from error
    except aiohttp.ClientError as error:
        text = " ".join(str(error).split())
        raise errors.BadAnswer(f"{request}: the answer is no HTTP that we take: {text:.200}") from error


@contextlib.contextmanager
def _addressing(request: Request) -> Iterator[None]:
    """What no resolver and no URL can hold, such as a part of a name with more than 63 letters."""
    try:
        yield
    except aiohttp.ClientError:  # some of them are ValueErrors as well
        raise
    except ValueError as error:
        raise errors.Unreachable(f"{request}: {error} in its address; {_NAMES}") from error


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    cause = error.__cause__ or error.os_error
    text = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or str(cause)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({text}); name its CA in registries.yaml (ca)"
    return f"no TLS ({text}); if it speaks plain HTTP only, say so in registries.yaml (insecure: true)"


@contextlib.asynccontextmanager
async def within(seconds: float | None, what: str) -> AsyncIterator[None]:
    """A bound on a whole exchange, whatever keeps coming; None is without one."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise errors.Unavailable(f"{what}: not done after {seconds or 0:g} s; try again later") from error
