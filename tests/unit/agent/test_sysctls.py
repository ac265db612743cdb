"""Kernel parameters are put back as they were, unless somebody else has had a hand in them since."""

from pathlib import Path

import pytest

from agent.adapters import sysctls


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of parameters, of which `forward` is 0 and `loose` is 2."""
    root = tmp_path / "sys"
    root.mkdir()
    (root / "forward").write_text("0\n")
    (root / "loose").write_text("2\n")
    boot = tmp_path / "boot"
    boot.write_text("first\n")
    monkeypatch.setattr(sysctls, "_ROOT", root)
    monkeypatch.setattr(sysctls, "_BOOT", boot)
    return root


def values(kernel: Path) -> list[str]:
    return [(kernel / name).read_text().strip() for name in ("forward", "loose")]


def test_what_it_was_is_put_back_once(kernel: Path, tmp_path: Path) -> None:
    """By an agent that knows only what is on disk. What was right already is nobody's to put back."""
    for _ in range(2):
        parameters = sysctls.Parameters(tmp_path / "note")
        parameters.set("forward", "1")
        parameters.set("loose", "2")
    assert values(kernel) == ["1", "2"]
    assert sysctls.Parameters(tmp_path / "note").put_back() == ["forward"]
    assert values(kernel) == ["0", "2"]
    assert sysctls.Parameters(tmp_path / "note").put_back() == []


def test_what_somebody_else_has_set_is_theirs(kernel: Path, tmp_path: Path) -> None:
    """Since the agent did, or in another boot."""
    parameters = sysctls.Parameters(tmp_path / "note")
    parameters.set("loose", "1")
    (kernel / "loose").write_text("0")
    assert parameters.put_back() == []
    assert values(kernel) == ["0", "0"]
    parameters.set("forward", "1")
    (tmp_path / "boot").write_text("second\n")
    assert parameters.put_back() == []
    assert values(kernel) == ["1", "0"]


def test_what_has_gone_is_not_put_back(kernel: Path, tmp_path: Path) -> None:
    """A device, and its parameters with it."""
    parameters = sysctls.Parameters(tmp_path / "note")
    parameters.set("loose", "1")
    parameters.set("forward", "1")
    (kernel / "loose").unlink()
    assert parameters.put_back() == ["forward"]


@pytest.mark.parametrize("note", ["", "[]", '{"boot": "first"}', '{"boot": "first", "before": {"forward": 3}}'])
def test_a_damaged_note_is_as_good_as_none(kernel: Path, tmp_path: Path, note: str) -> None:
    (tmp_path / "note").write_text(note)
    parameters = sysctls.Parameters(tmp_path / "note")
    parameters.set("forward", "1")
    assert parameters.put_back() == ["forward"]
    assert values(kernel) == ["0", "2"]
