"""The control planes that stand for each other."""

from pathlib import Path

import pytest

from orchctl import config, servers

THREE = ["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"]


def test_the_one_that_is_meant_is_dialed_first_and_then_the_others() -> None:
    """One that nobody knows is dialed alone: it was typed."""
    with servers.known(lambda: THREE, lambda _: None):
        assert servers.target("10.0.0.2:7400") == "ipv4:10.0.0.2:7400,10.0.0.1:7400,10.0.0.3:7400"
        assert servers.target("10.9.9.9:7400") == "10.9.9.9:7400"
    assert servers.target("10.0.0.2:7400") == "10.0.0.2:7400"
    with servers.known(lambda: ["[fd00::1]:7400", "[fd00::2]:7400", THREE[0]], lambda _: None):
        assert servers.target("[fd00::1]:7400") == "ipv6:[fd00::1]:7400,[fd00::2]:7400"
    with servers.known(lambda: ["nowhere.invalid:7400", "other.invalid:7400"], lambda _: None):
        assert servers.target("nowhere.invalid:7400") == "nowhere.invalid:7400"


def test_what_is_told_is_kept_at_the_end() -> None:
    """Only what was told last, and only if anything was."""
    kept: list[list[str]] = []
    with servers.known(lambda: THREE[:1], lambda told: kept.append(list(told))):
        assert servers.said() == THREE[0]
        servers.hear(",".join(THREE[:2]))
        servers.hear(",".join(THREE))
        assert not kept
    with servers.known(lambda: THREE, lambda told: kept.append(list(told))):
        pass
    assert kept == [THREE]


def test_a_context_keeps_the_servers_of_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own gives way when it is none of them any more; another server means another cluster."""
    monkeypatch.setenv("ORCH_CONFIG", str(tmp_path / "config.yaml"))
    made = config.Config().with_context("home", THREE[0]).using("home")
    assert made.servers("home") == THREE[:1]
    made = made.with_servers("home", THREE)
    config.save(tmp_path / "config.yaml", made)
    again = config.load(tmp_path / "config.yaml")
    assert (again.servers("home"), again.server("home")) == (THREE, THREE[0])
    assert again.with_servers("home", THREE[1:]).server("home") == THREE[1]
    assert again.with_context("home", THREE[2]).servers("home") == THREE
    assert again.with_context("home", "10.9.9.9:7400").servers("home") == ["10.9.9.9:7400"]
