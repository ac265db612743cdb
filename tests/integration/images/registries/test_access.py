"""Who gets in: Basic, tokens, identity tokens, TLS and client certificates, against Debian's docker-registry."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from images.image import Image
from images.registry import config, credentials, errors, login, pull, push, registries
from images.store import ImageStore
from tests.integration.images.registries.support import skopeo
from tests.support import registry, stubregistry, tokenserver
from tests.support.aio import bounded
from tests.support.registry import PASSWORD, USER

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]
ADA = credentials.Credentials(user=USER, password=PASSWORD)


@bounded(60)
async def test_basic(
    tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, load: Load, kept: credentials.DockerConfig
) -> None:
    """Without a login the remedy is named; after it pull and push work; after the logout they do not."""
    image = load(1000)
    with registry.running(tmp_path / "registry", auth=registry.htpasswd(tmp_path)) as peer:
        name = f"{peer.address}/web:1"
        async with door() as shared:
            with pytest.raises(errors.Unauthorized, match=f"orchctl image login {peer.address}"):
                await pull.pull(other, name, registries=shared)
            with pytest.raises(errors.Unauthorized, match="does not accept this user name and password"):
                await login.login(peer.address, credentials.Credentials(user=USER, password="wrong"), registries=shared)
            assert not kept.path.exists()
            assert await login.login(peer.address, ADA, registries=shared) == str(kept.path)
        assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
        async with door() as shared:
            assert await push.push(store, "web", name, registries=shared) == image.digest
            assert (await pull.pull(other, name, registries=shared)).digest == image.digest
            assert await login.logout(peer.address, registries=shared)
            assert not await login.logout(peer.address, registries=shared)
        async with door() as shared:
            with pytest.raises(errors.Unauthorized):
                await pull.resolve(name, registries=shared)


@bounded(60)
async def test_tokens(
    tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, load: Load, kept: credentials.DockerConfig
) -> None:
    """Anybody may pull, ada may push; a token is asked for once for each scope, and again when it has expired."""
    image = load(1000, 2000, 3000)
    pair = registry.certificate(tmp_path, "tokens")
    with (
        tokenserver.running(pair, {USER: PASSWORD}, anonymous=("pull",)) as tokens,
        registry.running(tmp_path / "registry", auth=tokens.section()) as peer,
    ):
        name = f"{peer.address}/team/web:1"
        hosts = {peer.address: config.Registry(token_realms=frozenset({tokens.url.split("/")[2]}))}
        async with door(hosts) as shared:
            with pytest.raises(errors.Unauthorized, match=f"orchctl image login {peer.address}"):
                await push.push(store, "web", name, registries=shared)
            with pytest.raises(errors.Unauthorized, match="does not accept"):
                await login.login(peer.address, credentials.Credentials(user=USER, password="x"), registries=shared)
            await login.login(peer.address, ADA, registries=shared)
        tokens.questions.clear()
        async with door(hosts) as shared:
            assert await push.push(store, "web", name, registries=shared) == image.digest
        assert [query["scope"] for query, _ in tokens.questions] == [["repository:team/web:pull,push"]]
        assert tokens.questions[0][0]["account"] == [USER]
        await kept.logout(peer.address)
        tokens.questions.clear()
        async with door(hosts) as shared:
            assert (await pull.pull(other, name, registries=shared)).digest == image.digest
        assert tokens.questions == [({"service": [tokenserver.SERVICE], "scope": ["repository:team/web:pull"]}, "")]
        await kept.login(peer.address, ADA)
        tokens.life_s = 0  # each is old when it comes, so every question fetches another one
        tokens.questions.clear()
        async with door(hosts) as shared:
            await push.push(store, "web", name, registries=shared)
        assert len(tokens.questions) > len(image.layers)


@bounded(60)
async def test_identity_tokens(
    tmp_path: Path, store: ImageStore, door: Door, load: Load, kept: credentials.DockerConfig
) -> None:
    """What some registries give for a password is traded for tokens by POST, and never sent to the registry."""
    image = load(1000)
    pair = registry.certificate(tmp_path, "tokens")
    with (
        tokenserver.running(pair, {}, identity_tokens={"refresh me": USER}) as tokens,
        registry.running(tmp_path / "registry", auth=tokens.section()) as peer,
    ):
        await kept.login(peer.address, credentials.Credentials(identity_token="refresh me"))
        hosts = {peer.address: config.Registry(token_realms=frozenset({tokens.url.split("/")[2]}))}
        async with door(hosts) as shared:
            assert await push.push(store, "web", f"{peer.address}/web:1", registries=shared) == image.digest
    form, authorization = tokens.questions[0]
    assert (form["grant_type"], form["scope"], authorization) == (
        ["refresh_token"],
        ["repository:web:pull,push"],
        "",
    )


@bounded(60)
async def test_a_token_service_of_another_origin_sees_no_password_until_it_is_named(
    tmp_path: Path, store: ImageStore, door: Door, load: Load, kept: credentials.DockerConfig
) -> None:
    """CVE-2020-15157. The refusal tells which line of which file would allow it.

    Fails when `realms.judge` answers CREDENTIALS for hosts that nobody has named.
    """
    load(1000)
    pair = registry.certificate(tmp_path, "tokens")
    with (
        tokenserver.running(pair, {USER: PASSWORD}) as tokens,
        registry.running(tmp_path / "registry", auth=tokens.section()) as peer,
    ):
        await kept.login(peer.address, ADA)
        async with door() as shared:
            with pytest.raises(errors.Unauthorized):
                await push.push(store, "web", f"{peer.address}/web:1", registries=shared)
            where = re.escape(f"registries.{peer.address}.tokenRealms")
            with pytest.raises(errors.Unauthorized, match=where):
                await login.login(peer.address, ADA, registries=shared)
    assert tokens.questions
    assert {authorization for _, authorization in tokens.questions} == {""}
    assert all("account" not in query for query, _ in tokens.questions)


@bounded(60)
async def test_a_keychain_is_asked_once(
    tmp_path: Path, store: ImageStore, door: Door, load: Load, kept: credentials.DockerConfig
) -> None:
    """Not for every request; and again when the registry refuses what it said."""
    load(1000, 2000)
    calls, secret = tmp_path / "calls", tmp_path / "secret"
    program = tmp_path / "bin/docker-credential-tests"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$1" >>{calls}\nexec cat {secret}\n')
    program.chmod(0o755)
    with (
        registry.running(tmp_path / "registry", auth=registry.htpasswd(tmp_path)) as peer,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        kept.path.parent.mkdir()
        kept.path.write_text(json.dumps({"credsStore": "tests"}))
        async with door() as shared:
            secret.write_text(json.dumps({"Username": USER, "Secret": "old"}))
            with pytest.raises(errors.Unauthorized):
                await push.push(store, "web", f"{peer.address}/web:1", registries=shared)
            asked = len(calls.read_text().split())
            secret.write_text(json.dumps({"Username": USER, "Secret": PASSWORD}))
            await push.push(store, "web", f"{peer.address}/web:1", registries=shared)
    assert len(calls.read_text().split()) == asked + 1


@bounded(60)
async def test_tls(tmp_path: Path, store: ImageStore, other: ImageStore, door: Door, load: Load) -> None:
    """A certificate of a CA that is named is believed, for that registry; without it the remedy is named."""
    image = load(1000)
    pair = registry.certificate(tmp_path / "tls")
    with registry.running(tmp_path / "registry", host="localhost", http=registry.tls(pair)) as peer:
        name = f"{peer.address}/web:1"
        async with door() as shared:
            with pytest.raises(errors.Untrusted, match=r"certificate is not trusted.*registries.yaml \(ca\)"):
                await push.push(store, "web", name, registries=shared)
        async with door({peer.address: config.Registry(ca=pair[0])}) as shared:
            assert await push.push(store, "web", name, registries=shared) == image.digest
            assert (await pull.pull(other, name, registries=shared)).digest == image.digest


@bounded(60)
async def test_client_certificates(tmp_path: Path, store: ImageStore, door: Door, load: Load) -> None:
    image = load(1000)
    pair, client = registry.certificate(tmp_path / "tls"), registry.certificate(tmp_path / "client", "client")
    with registry.running(tmp_path / "registry", http=registry.tls(pair, clients=client[0])) as peer:
        name = f"{peer.address}/web:1"
        settings = config.Registry(ca=pair[0])
        async with door({peer.address: settings}) as shared:
            with pytest.raises(errors.RegistryError):
                await push.push(store, "web", name, registries=shared)
        settings = config.Registry(ca=pair[0], client_certificate=client[0], client_key=client[1])
        async with door({peer.address: settings}) as shared:
            assert await push.push(store, "web", name, registries=shared) == image.digest
        settings = config.Registry(ca=pair[0], client_certificate=client[0], client_key=pair[1])
        async with door({peer.address: settings}) as shared:
            with pytest.raises(errors.BadConfiguration, match=re.escape(str(client[0]))):
                await push.push(store, "web", name, registries=shared)


@bounded(60)
async def test_nobody_there(door: Door) -> None:
    """Refused connections and unknown names are told at once, with what to check."""
    async with door() as shared:
        with pytest.raises(errors.Unreachable, match="is it running"):
            await pull.resolve(f"127.0.0.1:{registry.free_port()}/web:1", registries=shared)
        with pytest.raises(errors.Unreachable, match="check the name"):
            await pull.resolve("no-such-host.invalid/web:1", registries=shared)


@bounded(60)
async def test_a_registry_with_plain_http_is_told_apart(tmp_path: Path, door: Door) -> None:
    """One that is not on the loopback needs `insecure`; the error says so. Here its CA is given, which demands TLS."""
    pair = registry.certificate(tmp_path / "tls")
    with registry.running(tmp_path / "registry") as peer:
        async with door({peer.address: config.Registry(ca=pair[0])}) as shared:
            with pytest.raises(errors.Untrusted, match="insecure: true"):
                await pull.resolve(f"{peer.address}/web:1", registries=shared)
        async with door({peer.address: config.Registry(insecure=True)}) as shared:
            with pytest.raises(errors.NotFound, match="check the name"):
                await pull.resolve(f"{peer.address}/web:1", registries=shared)


@bounded(60)
async def test_skopeo_uses_what_we_keep(tmp_path: Path, door: Door, kept: credentials.DockerConfig) -> None:
    """The file is Docker's: other tools read it, and what others wrote in it stays."""
    kept.path.parent.mkdir()
    kept.path.write_text(json.dumps({"auths": {"else.example": {"auth": "YTpi"}}, "psFormat": "x"}))
    with registry.running(tmp_path / "registry", auth=registry.htpasswd(tmp_path)) as peer:
        async with door() as shared:
            await login.login(peer.address, ADA, registries=shared)
        said = skopeo("login", "--get-login", f"--authfile={kept.path}", peer.address)
    assert said.strip() == USER
    content = json.loads(kept.path.read_text())
    assert (content["psFormat"], content["auths"]["else.example"]) == ("x", {"auth": "YTpi"})


@bounded(60)
async def test_a_registry_that_lets_everybody_look_still_tries_the_password(
    door: Door, kept: credentials.DockerConfig
) -> None:
    """It answers without a challenge, and refuses a wrong name that it is told unasked; that is not kept."""
    async with stubregistry.running() as stub, door() as shared:

        async def lenient(request: web.Request) -> web.StreamResponse | None:
            told = request.headers.get("Authorization")
            return web.Response(status=401) if told not in {None, ADA.basic} else None

        stub.fault = lenient
        with pytest.raises(errors.Unauthorized, match="does not accept this user name and password"):
            await login.login(stub.address, credentials.Credentials(user=USER, password="wrong"), registries=shared)
        assert not kept.path.exists()
        assert await login.login(stub.address, ADA, registries=shared) == str(kept.path)
