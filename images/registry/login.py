"""`login` and `logout`: credentials that are tried before they are kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from images import errors as image_errors
from images import reference
from images.registry import answers, auth, errors, retry, transport

if TYPE_CHECKING:
    import aiohttp

    from images.registry.credentials import Credentials
    from images.registry.registries import Registries

_LINE_END = re.compile(r"[\r\n\0]")


async def login(host: str, credentials: Credentials, *, registries: Registries) -> str:
    """Keep the credentials for the registry once it has accepted them; returns where they are kept."""
    host = registry_name(host)
    if ":" in credentials.user or _LINE_END.search(credentials.user + credentials.password):
        raise image_errors.InvalidReference("a user name has no colon, and neither it nor a password a line feed")
    given = auth.Authorizer(host, registries.http, registries.config, registries.kept, given=credentials)
    await retry.persist(registries.config.retry, lambda: _try(host, given, registries))
    if not given.was_challenged and credentials.user:
        await retry.persist(registries.config.retry, lambda: _insist(host, credentials, registries))
    return await registries.kept.login(host, credentials)


async def logout(host: str, *, registries: Registries) -> bool:
    """Forget the credentials; False when there were none."""
    return await registries.kept.logout(registry_name(host))


def registry_name(text: str) -> str:
    """The registry's canonical name; `InvalidReference` for a URL or an image."""
    bare = text.removeprefix("https://").rstrip("/")
    if not reference.is_registry(bare):
        raise image_errors.InvalidReference(f"registry {text!r:.200}: expected host[:port], such as registry.lan:5000")
    return reference.DEFAULT_REGISTRY if bare in {"index.docker.io", "registry-1.docker.io"} else bare


async def _try(host: str, given: auth.Authorizer, registries: Registries) -> None:
    base = await registries.http.base(host)
    request = transport.Request(method="GET", url=f"{base}/v2/", host=host)
    async with given.send(request, (), time_s=registries.config.bounds.document_s) as answer:
        await _check(host, answer)


async def _insist(host: str, credentials: Credentials, registries: Registries) -> None:
    """A registry that lets everybody look asks for no name; it refuses a wrong one all the same when it is told one."""
    base = await registries.http.base(host)
    request = transport.Request(method="GET", url=f"{base}/v2/", host=host, authorization=credentials.basic)
    time_s = registries.config.bounds.document_s
    async with transport.within(time_s, str(request)), registries.http.send(request) as answer:
        await _check(host, answer)


async def _check(host: str, answer: aiohttp.ClientResponse) -> None:
    if answer.status in {401, 403}:
        message = f"registry {host} does not accept this user name and password"
        raise errors.Unauthorized(f"{message}; check them, and how the registry wants you to log in")
    await answers.check(answer, {200}, what=f"login to {host}", host=host)
