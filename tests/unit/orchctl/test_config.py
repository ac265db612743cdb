"""Which control plane is meant: flags, environment and the context file."""

import stat
from pathlib import Path

import pytest

from orchctl import config
from orchctl.errors import InvalidInput, OrchctlError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orch" / "config.yaml"
    made = config.Config().with_context("local", "10.111.0.1:7400").with_context("far", "far.example").using("local")
    config.save(path, made)
    return path


def choose(file: Path, *, server: str = "", context: str = "", env: str = "") -> str:
    environ = {"ORCH_CONFIG": str(file), "ORCH_SERVER": env}
    return config.choose_server(server=server, context=context, environ=environ)


def test_flags_come_before_the_environment_before_the_file(file: Path) -> None:
    assert choose(file) == "10.111.0.1:7400"
    assert choose(file, env="e:1") == "e:1"
    assert choose(file, env="e:1", context="far") == "far.example:7400"
    assert choose(file, env="e:1", context="far", server="s:2") == "s:2"


def test_the_file_is_its_owners_only(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]


def test_nothing_configured_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(OrchctlError, match="no control plane is configured") as raised:
        choose(tmp_path / "none.yaml")
    assert "orchctl cluster up" in raised.value.hint
    assert "--server" in raised.value.hint


def test_an_unknown_context_names_the_known_ones(file: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no context 'near'") as raised:
        choose(file, context="near")
    assert raised.value.hint == "contexts: far, local"


def test_keys_of_a_later_version_survive_a_change(file: Path) -> None:
    file.write_text("current: a\ncontexts:\n  a: {server: h:1, ca: secret}\n")
    config.save(file, config.load(file).with_context("b", "h:2").with_context("a", "h:3"))
    assert config.load(file).contexts == {"a": {"server": "h:3", "ca": "secret"}, "b": {"server": "h:2"}}


def test_without_its_current_context_there_is_none(file: Path) -> None:
    known = config.load(file)
    assert known.without_context("local").current == ""
    assert known.without_context("far").current == "local"


@pytest.mark.parametrize("text", ["[", "- a", "contexts: [a]", "contexts: {a: b}"])
def test_a_broken_file_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(OrchctlError, match=str(file)):
        config.load(file)


@pytest.mark.parametrize(
    ("text", "server"),
    [("h", "h:7400"), ("h:1", "h:1"), ("[::1]:5", "[::1]:5"), ("[fe80::1%eth0]", "[fe80::1%eth0]:7400")],
)
def test_addresses_are_completed(text: str, server: str) -> None:
    assert config.parse_server(text, "--server") == server


@pytest.mark.parametrize("text", ["", "h:", "h:0", "h:65536", "http://h:1", "h:1:2", "a b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--server: not a server's address"):
        config.parse_server(text, "--server")


def test_the_file_follows_the_environment() -> None:
    assert config.default_path({"ORCH_CONFIG": "/x"}) == Path("/x")
    assert config.default_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/orch/config.yaml")
    assert config.default_path({}) == Path("~/.config/orch/config.yaml").expanduser()
