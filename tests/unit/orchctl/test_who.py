"""What a person is known by."""

import time
from pathlib import Path

import pytest

from orchctl import config, who
from orchctl.errors import OrchctlError
from trust import errands
from trust.folder import Folder, material

NOW_MS = time.time_ns() // 1_000_000
SEALING = b"s" * 32


def folder(path: Path, *, lifetime_ms: int = 3_600_000) -> Path:
    """Of ann, an editor."""
    root = errands.root("c1", "first", SEALING, NOW_MS)
    key, asked = errands.request()
    wanted = errands.Wanted(cluster="c1", role="editor", name="ann", lifetime_ms=lifetime_ms)
    chain = errands.issue(asked, wanted, root, SEALING, NOW_MS)
    Folder(path).save(material(key.encode(), chain.encode(), root.certificate.encode()))
    return path


def test_nobody_is_known_where_nothing_says_so(tmp_path: Path) -> None:
    """Then there is no TLS; and a list of contexts says who one is in each."""
    assert who.material() is None
    path = folder(tmp_path / "home")
    with who.known_by(lambda: path):
        own = who.material()
    assert own is not None
    assert str(own.identity) == "editor ann"
    assert (who.described(path), who.described(None)) == ("ann (editor)", "-")
    assert who.described(tmp_path / "gone") == "? (log in again)"


def test_a_certificate_that_has_expired_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    """With the remedy."""
    path = folder(tmp_path / "home", lifetime_ms=-1_000)
    with who.known_by(lambda: path), pytest.raises(OrchctlError, match="of editor ann has expired") as refused:
        who.material()
    assert "orchctl login" in refused.value.hint


def test_the_context_s_folder_goes_for_a_named_server_too(tmp_path: Path) -> None:
    """Another instance of the same cluster wants the same certificate; the environment goes before it."""
    environ = {"ORCH_CONFIG": str(tmp_path / "config.yaml")}
    made = config.Config().with_context("home", "h:1", tmp_path / "home").with_context("bare", "b:1").using("home")
    config.save(tmp_path / "config.yaml", made)
    assert config.choose_trust(context="", environ=environ) == tmp_path / "home"
    assert config.choose_trust(context="bare", environ=environ) is None
    assert config.choose_trust(context="", environ={**environ, "ORCH_TRUST": "/elsewhere"}) == Path("/elsewhere")


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a" * 70])
def test_a_context_s_name_is_no_way_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """It is the name of a folder."""
    with pytest.raises(OrchctlError, match="not a context's name"):
        config.trust_folder(name, {"ORCH_CONFIG": str(tmp_path / "config.yaml")})
