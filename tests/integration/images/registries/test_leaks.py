"""Where credentials must not go, and where nobody must be led: redirects, realms, uploads elsewhere, proxies."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from images.image import Image
from images.registry import config, credentials, errors, pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import ADA, basic, filled, is_clean, path_of
from tests.support import registry, stubregistry, tunnel
from tests.support.aio import bounded

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]


@bounded(30)
async def test_a_redirect_to_another_host_drops_the_credentials(
    store: ImageStore, door: Door, kept: credentials.DockerConfig
) -> None:
    """Also when it leads back: what comes after a stranger is the stranger's idea.

    Fails when `Transport._follow` keeps the header.
    """
    async with stubregistry.running() as stub, stubregistry.running() as stranger, door() as shared:
        filled(stub)
        await kept.login(stub.address, ADA)

        async def lead_away(request: web.Request) -> web.StreamResponse | None:
            if "/blobs/" not in request.path or "back" in request.query:
                return None
            return web.Response(status=307, headers={"Location": f"{stranger.url}{request.path}?signature=%2F%3D"})

        async def lead_back(request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=302, headers={"Location": f"{stub.url}{request.path}?back=1"})

        async def let_in(request: web.Request) -> web.StreamResponse | None:
            return None if "back" in request.query else await basic(lead_away)(request)

        stub.fault, stranger.fault = let_in, lead_back
        await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert stranger.asked
    assert not [entry for entry in stranger.asked if "Authorization" in entry.headers]
    assert all(entry.path.endswith("?signature=%2F%3D") for entry in stranger.asked)
    returned = [entry for entry in stub.asked if "back=1" in entry.path]
    assert returned
    assert not [entry for entry in returned if "Authorization" in entry.headers]
    assert [entry for entry in stub.asked if "Authorization" in entry.headers]


@bounded(30)
async def test_an_upload_elsewhere_sees_no_credentials(
    store: ImageStore, door: Door, load: Load, kept: credentials.DockerConfig
) -> None:
    """Some registries have the bytes sent to a cloud's address. Fails when `Repository.request` takes it for home."""
    load(1000)
    async with stubregistry.running() as stub, stubregistry.running() as cloud, door() as shared:
        await kept.login(stub.address, ADA)

        async def elsewhere(request: web.Request) -> web.StreamResponse | None:
            if request.method != "POST":
                return None
            cloud.uploads["one"] = bytearray()
            return web.Response(status=202, headers={"Location": f"{cloud.url}/v2/web/blobs/uploads/one"})

        stub.fault = basic(elsewhere)
        cloud.blobs = stub.blobs
        shared.transfers.uploads = asyncio.Semaphore(1)
        await push.push(store, "web", f"{stub.address}/web:1", registries=shared)
    assert [entry.method for entry in cloud.asked] == ["PUT", "PUT"]
    assert not [entry for entry in cloud.asked if "Authorization" in entry.headers]


@pytest.mark.parametrize(
    ("realm", "reason"),
    [
        ("http://169.254.169.254/latest", "not its own"),
        ("file:///etc/passwd", "not its own"),
        ("http://a:b@127.0.0.1/", "not its own"),
        ("", "log in with"),
    ],
)
@bounded(30)
async def test_a_realm_that_nobody_should_ask_is_not_asked(door: Door, realm: str, reason: str) -> None:
    """A token service at a bare address of somewhere else is how a registry would have us knock at machines nearby.

    Fails when `realms.judge` lets addresses through.
    """
    async with stubregistry.running() as stub, door() as shared:

        async def challenge(_: web.Request) -> web.StreamResponse:
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})

        stub.fault = challenge
        with pytest.raises(errors.Unauthorized, match=reason):
            await pull.resolve(f"{stub.address}/web:1", registries=shared)
        assert len(stub.asked) == 1


@bounded(30)
async def test_tls_is_never_left(tmp_path: Path, store: ImageStore, door: Door) -> None:
    """Fails when `transport._next` takes any http(s) address."""
    pair = registry.certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    async with stubregistry.running(context=context) as stub, stubregistry.running() as plain:
        filled(stub)

        async def lead_away(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{plain.url}{request.path}"})

        stub.fault = path_of("/blobs/", answer=lead_away)
        async with door({stub.address: config.Registry(ca=pair[0])}) as shared:
            with pytest.raises(errors.BadAnswer, match="from TLS to plain HTTP"):
                await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert plain.asked == []
    assert is_clean(store)


@bounded(30)
async def test_a_circle_of_redirects_ends(door: Door) -> None:
    async with stubregistry.running() as stub, door() as shared:

        async def again(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": str(request.rel_url)})

        stub.fault = again
        with pytest.raises(errors.BadAnswer, match="redirects"):
            await pull.resolve(f"{stub.address}/web:1", registries=shared)
        assert len(stub.asked) < 12


@bounded(30)
async def test_proxies_of_the_environment(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry elsewhere is asked through the proxy, with the proxy's own credentials; one on the loopback is not."""
    async with stubregistry.running() as proxy, stubregistry.running() as near:
        monkeypatch.setenv("http_proxy", f"http://bob:pw@{proxy.address}")
        monkeypatch.setenv("no_proxy", "other.invalid")
        wanted, _ = filled(proxy), filled(near)
        names = ("registry.invalid:80", "other.invalid:80")
        async with door({name: config.Registry(insecure=True) for name in names}) as shared:
            assert await pull.resolve("registry.invalid:80/web:1", registries=shared) == wanted
            await pull.resolve(f"{near.address}/web:1", registries=shared)
            with pytest.raises(errors.Unreachable):
                await pull.resolve("other.invalid:80/web:1", registries=shared)
    assert len(proxy.asked) == 1
    assert proxy.asked[0].headers["Proxy-Authorization"] == f"Basic {base64.b64encode(b'bob:pw').decode()}"
    assert proxy.asked[0].headers["Host"].startswith("registry.invalid")


@bounded(30)
async def test_what_a_redirect_leads_to_cannot_ask_for_a_login(
    store: ImageStore, door: Door, kept: credentials.DockerConfig
) -> None:
    """The stranger's 401 is no reason to show anybody a password: neither the stranger nor its token service.

    Fails when `Authorizer.send` takes a 401 for the registry's, whoever it came from.
    """
    async with stubregistry.running() as stub, stubregistry.running() as stranger, door() as shared:
        filled(stub)
        await kept.login(stub.address, ADA)

        async def lead_away(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{stranger.url}{request.path}"})

        async def want(_: web.Request) -> web.StreamResponse:
            realm = f'Bearer realm="{stranger.url}/token", Basic realm="x"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})

        stub.fault, stranger.fault = path_of("/blobs/", answer=lead_away), want
        with pytest.raises(errors.Unauthorized):
            await pull.pull(store, f"{stub.address}/web:1", registries=shared)
    assert not [entry for entry in (*stub.asked, *stranger.asked) if "Authorization" in entry.headers]
    assert not [entry for entry in stranger.asked if "/token" in entry.path]


@bounded(30)
async def test_a_proxy_sees_nothing_of_what_is_said_in_tls(
    tmp_path: Path,
    store: ImageStore,
    door: Door,
    kept: credentials.DockerConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTPS_PROXY is asked for a tunnel; the registry's certificate is checked through it, by the registry's name."""
    pair = registry.certificate(tmp_path, "registry.invalid")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    async with stubregistry.running(context=context) as stub, tunnel.running(stub.address) as proxy:
        filled(stub)

        async def let_in(_: web.Request) -> web.StreamResponse | None:
            return None

        stub.fault = basic(let_in)
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        host = "registry.invalid:5000"
        await kept.login(host, ADA)
        async with door({host: config.Registry(ca=pair[0])}) as shared:
            assert await pull.pull(store, f"{host}/web:1", registries=shared)
        async with door() as shared:
            with pytest.raises(errors.Untrusted, match="certificate is not trusted"):
                await pull.resolve(f"{host}/web:1", registries=shared)
    assert {line.partition(" HTTP")[0] for line in proxy.asked} == {f"CONNECT {host}"}
    assert b"Basic" not in proxy.passed
    assert len(proxy.passed) > 1000
