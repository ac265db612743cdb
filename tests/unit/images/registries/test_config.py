"""registries.yaml is read strictly: each mistake is one sentence with line, key and remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from images.registry import config, errors

EVERYTHING = """\
registries:
  docker.io:
    mirrors: [mirror.lan:5000, harbor.lan/hub/proxy]
  registry.lan:5000:
    insecure: true
  registry.corp.example:
    ca: {ca}
    clientCertificate: {ca}
    clientKey: {ca}
    tokenRealms: [Login.corp.example, login.corp.example:8443]
limits:
  downloads: 8
  uploads: 2
  bandwidth: 50Mi
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "registries.yaml"
    path.write_text(text)
    return path


def test_everything(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    read = config.load(write(tmp_path, EVERYTHING.format(ca=ca)))
    assert read.limits == config.Limits(downloads=8, uploads=2, bandwidth=50 << 20)
    assert read.of("docker.io").mirrors == (
        config.Mirror(host="mirror.lan:5000"),
        config.Mirror(host="harbor.lan", prefix="hub/proxy"),
    )
    assert read.of("docker.io").mirrors[1].repository("library/web") == "hub/proxy/library/web"
    assert read.of("registry.lan:5000").insecure
    corp = read.of("registry.corp.example")
    assert (corp.ca, corp.client_certificate, corp.client_key) == (ca, ca, ca)
    assert read.token_realms("registry.corp.example") == {"login.corp.example", "login.corp.example:8443"}
    assert read.of("nobody.example") == config.Registry()


def test_the_guide_shows_every_key(tmp_path: Path) -> None:
    """The example of docs/registries.md is taken as it is, but for the place of its files, and leaves nothing out."""
    guide = (Path(__file__).parents[4] / "docs/registries.md").read_text()
    example = guide.partition("```yaml\n")[2].partition("```")[0]
    for name in ("corp-ca.pem", "node.pem", "node.key"):
        (tmp_path / name).touch()
    read = config.load(write(tmp_path, example.replace("/etc/orch", str(tmp_path))))
    shown = [value for registry in read.registries.values() for value in dataclasses.asdict(registry).items()]
    assert {name for name, value in shown if value} == {field.name for field in dataclasses.fields(config.Registry)}
    assert read.limits == config.Limits(downloads=4, uploads=4, bandwidth=50 << 20)


@pytest.mark.parametrize("text", ["", "# nothing\n", "registries:\n", "limits: {}\n"])
def test_nothing_is_something(tmp_path: Path, text: str) -> None:
    assert config.load(write(tmp_path, text)) == config.Config()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("registry: {}", "registries.yaml:1: registry: there is no such key; did you mean registries?"),
        (
            "registries:\n  a.example:\n    mirror: [b]",
            "yaml:3: registries.a.example.mirror: .* mean mirrors?",
        ),
        ("registries: [a]", "registries.yaml:1: registries: expected keys and values"),
        ("registries:\n  https://a: {}", r"yaml:2: .*expected host\[:port\].*without https://"),
        ("registries:\n  a.example/b: {}", r"expected host\[:port\], found 'a.example/b'"),
        ("registries:\n  a: {}\n  a: {}", "registries.yaml:3: registries.a: stands twice"),
        ("registries:\n  docker.io: {}\n  index.docker.io: {}", "yaml:3: .*docker.io stands twice, since index.docker"),
        ("registries:\n  a: {insecure: yes}", "registries.a.insecure: expected true or false"),
        ("registries:\n  a: {insecure: true, ca: /etc/passwd}", "insecure means plain HTTP"),
        ("registries:\n  a: {ca: ca.pem}", "registries.a.ca: expected an absolute path"),
        ("registries:\n  a: {ca: /no/such/file}", "there is no file /no/such/file"),
        ("registries:\n  a: {clientKey: /etc/passwd}", "clientKey without clientCertificate"),
        ("registries:\n  a: {mirrors: b}", "registries.a.mirrors: expected a list"),
        ("registries:\n  a: {mirrors: ['http://b']}", r"registries.a.mirrors\[0\]: expected host\[:port\]"),
        ("registries:\n  a: {mirrors: [b/UPPER]}", "must be lower case"),
        ("registries:\n  a: {tokenRealms: [a/b]}", r"registries.a.tokenRealms\[0\]"),
        ("limits: {downloads: 0}", "limits.downloads: expected a whole number from 1 to 64"),
        ("limits: {downloads: many}", "expected a whole number"),
        ("limits: {bandwidth: 1}", "expected bytes a second from 16Ki on"),
        ("limits: {bandwidth: fast}", "such as 50Mi"),
        ("limits: {bandwidth: }", "expected a text"),
        ("a: &x {}\nb: *x", "not valid YAML: .*aliases"),
        ("a: [", "not valid YAML"),
        ("!!python/object:os.system {}", "expected keys and values"),
        ("\x00", "not valid YAML"),
        ("- a", "registries.yaml:1: expected keys and values"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(errors.BadConfiguration, match=complaint):
        config.load(write(tmp_path, text))


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """The usual one may be missing; one that somebody names may not."""
    with pytest.raises(errors.BadConfiguration, match="No such file"):
        config.load(tmp_path / "registries.yaml")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("10.0.0.1:5000", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("[fe80::1]", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert config.is_loopback(host) is expected
