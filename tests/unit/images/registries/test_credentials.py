"""Docker's config.json and credential helpers, read as Docker does and written so that nothing is lost or leaks."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from images.registry import credentials, errors, helpers
from images.registry.credentials import Credentials
from tests.support.aio import bounded

ADA = Credentials(user="ada", password="pass:word")
HELPER = """\
#!/bin/sh
cd "{folder}" || exit 1
echo "$1" >>called
case $1 in
get) read -r server; name=$(echo "$server" | tr -c 'a-z0-9\\n' _)
     test -f "$name" || {{ echo "credentials not found in native keychain"; exit 1; }}; cat "$name";;
store) input=$(cat); server=$(echo "$input" | sed 's/.*ServerURL": "\\([^"]*\\)".*/\\1/' | tr -c 'a-z0-9\\n' _)
     echo "$input" >"$server";;
erase) read -r server; rm "$(echo "$server" | tr -c 'a-z0-9\\n' _)";;
esac
"""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kept(folder: Path, **content: Any) -> credentials.DockerConfig:
    path = folder / "docker/config.json"
    if content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return credentials.DockerConfig(path)


@pytest.fixture
def keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helper `docker-credential-tests` on PATH; the folder where it keeps things, and notes how it was called."""
    folder = tmp_path / "keychain"
    folder.mkdir()
    program(tmp_path, "tests", HELPER.format(folder=folder))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / f"bin/docker-credential-{name}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("reg.example:5000", "reg.example:5000"),
        ("https://reg.example:5000", "reg.example:5000"),
        ("https://reg.example:5000/v2/", "reg.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
@bounded(5)
async def test_every_way_to_write_a_registry(tmp_path: Path, key: str, host: str) -> None:
    found = await kept(tmp_path, auths={key: {"auth": encoded("ada:pass:word")}}).find(host)
    assert found == ADA


@bounded(5)
async def test_what_is_kept_for_somebody_else_is_not_sent(tmp_path: Path) -> None:
    """Neither for a part of the registry, nor for another port, nor for a name that begins the same."""
    keys = ("reg.example/team", "reg.example:5000", "reg.example.evil.example", "https://reg.example/v3/")
    config = kept(tmp_path, auths={key: {"auth": encoded("eve:pw")} for key in keys})
    assert await config.find("reg.example") is None


@bounded(5)
async def test_an_identity_token_goes_before_a_password(tmp_path: Path) -> None:
    entry = {"auth": encoded("ada:"), "identitytoken": "refresh"}
    assert await kept(tmp_path, auths={"reg.example": entry}).find("reg.example") == Credentials(
        identity_token="refresh"
    )


@bounded(5)
async def test_no_file_is_no_credentials(tmp_path: Path) -> None:
    assert await kept(tmp_path).find("reg.example") is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not valid JSON.*repair the file"),
        (b"[]", "expected a JSON object"),
        (b'{"auths": []}', "auths: expected an object"),
        (b'{"auths": {"reg.example": {"auth": "%%"}}}', "is not user:password in base64"),
        (b'{"credHelpers": {"reg.example": 1}}', "credHelpers"),
        (b'{"credsStore": "../evil"}', "credential helper"),
        (b'{"credsStore": "missing-here"}', "docker-credential-missing-here: No such file"),
    ],
)
@bounded(5)
async def test_a_file_that_cannot_be_meant_is_told_with_its_name(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    config = kept(tmp_path)
    config.path.parent.mkdir()
    config.path.write_bytes(content)
    with pytest.raises(errors.BadConfiguration, match=complaint):
        await config.find("reg.example")


@bounded(5)
async def test_a_login_writes_for_its_owner_alone_and_keeps_the_rest(tmp_path: Path) -> None:
    config = kept(tmp_path, auths={"else.example": {"auth": "x", "email": "e"}}, HttpHeaders={"A": "b"})
    config.path.chmod(0o644)
    await config.login("reg.example", ADA)
    await config.login("docker.io", ADA)
    content = json.loads(config.path.read_text())
    assert content["HttpHeaders"] == {"A": "b"}
    assert content["auths"]["else.example"] == {"auth": "x", "email": "e"}
    assert content["auths"]["https://index.docker.io/v1/"] == {"auth": encoded("ada:pass:word")}
    assert stat.S_IMODE(config.path.stat().st_mode) == 0o600
    assert [path.name for path in config.path.parent.iterdir()] == ["config.json"]
    assert await config.find("reg.example") == ADA
    assert await config.logout("reg.example")
    assert not await config.logout("reg.example")
    assert await config.find("reg.example") is None
    assert await config.find("docker.io") == ADA


@bounded(20)
async def test_logins_at_once_all_count(tmp_path: Path) -> None:
    config = kept(tmp_path)

    def login(number: int) -> None:
        asyncio.run(credentials.DockerConfig(config.path).login(f"reg{number}.example", ADA))

    await asyncio.gather(*(asyncio.to_thread(login, number) for number in range(20)))
    assert len(json.loads(config.path.read_text())["auths"]) == 20


@bounded(5)
async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    config, real = kept(tmp_path), tmp_path / "elsewhere.json"
    config.path.parent.mkdir()
    config.path.symlink_to(real)
    await config.login("reg.example", ADA)
    assert config.path.is_symlink()
    assert "reg.example" in real.read_text()


@bounded(20)
async def test_a_keychain_keeps_what_the_file_then_does_not(tmp_path: Path, keychain: Path) -> None:
    config = kept(tmp_path, credsStore="tests")
    assert await config.login("reg.example", ADA) == "docker-credential-tests"
    assert ADA.password not in config.path.read_text()
    assert encoded("ada:pass:word") not in config.path.read_text()
    assert await config.find("reg.example") == ADA
    await config.login("reg.example", Credentials(identity_token="refresh"))
    assert await config.find("reg.example") == Credentials(identity_token="refresh")
    assert await config.logout("reg.example")
    assert await config.find("reg.example") is None
    assert not await config.logout("reg.example")
    assert set((keychain / "called").read_text().split()) == {"get", "store", "erase"}


@bounded(20)
async def test_a_helper_of_one_registry_is_not_asked_for_others(tmp_path: Path, keychain: Path) -> None:
    auths = {"else.example": {"auth": encoded("ada:pass:word")}}
    config = kept(tmp_path, credHelpers={"reg.example": "tests"}, auths=auths)
    assert await config.find("else.example") == ADA
    assert not (keychain / "called").exists()
    assert await config.find("reg.example") is None
    assert (keychain / "called").read_text().split() == ["get"]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("#!/bin/sh\necho locked; exit 1\n", "docker-credential-bad get reg.example: locked; repair"),
        ("#!/bin/sh\nexit 3\n", "failed without a word"),
        ('#!/bin/sh\necho \'{"Secret": "hunter2"}\'\n', "no JSON with Username and Secret"),
        ("#!/bin/sh\nexec yes\n", "more than 64 KiB"),
        ("#!/bin/sh\nexec sleep 60\n", "no answer in"),
    ],
)
@pytest.mark.usefixtures("keychain")
@bounded(20)
async def test_helpers_that_fail_are_told_with_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str
) -> None:
    """And no secret is in the words."""
    program(tmp_path, "bad", script)
    if "sleep" in script:
        monkeypatch.setattr(helpers, "TIMEOUT_S", 0.5)
    with pytest.raises(errors.BadConfiguration, match=complaint) as told:
        await kept(tmp_path, credsStore="bad").find("reg.example")
    assert "hunter2" not in str(told.value)


def test_secrets_do_not_show() -> None:
    """Where a value is printed by a debugger or a log."""
    assert "pass:word" not in repr(ADA)
    assert "refresh" not in repr(Credentials(identity_token="refresh"))


def test_where_docker_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials.default_path({"DOCKER_CONFIG": "/d"}) == Path("/d/config.json")
    monkeypatch.setenv("HOME", "/home/ada")
    assert credentials.default_path({}) == Path("/home/ada/.docker/config.json")
