"""The sockets for names that an agent opens before anything else."""

import socket
from pathlib import Path

import pytest

from agent import early
from tests.support.dnsworld import free_port


def test_it_is_one_at_each_address_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both families. 192.0.2.1 is nobody's; the others are opened all the same."""
    monkeypatch.setattr(early, "PORT", free_port("127.0.0.1"))
    (tmp_path / early.NOTE).write_text("127.0.0.1 192.0.2.1 ::1")
    sockets = early.opened(["--name", "n1", "--state", str(tmp_path)])
    try:
        assert [(one.family, *one.getsockname()[:2]) for one in sockets] == [
            (socket.AF_INET, "127.0.0.1", early.PORT),
            (socket.AF_INET6, "::1", early.PORT),
        ]
    finally:
        for one in sockets:
            one.close()


@pytest.mark.parametrize("arguments", [[], ["--state"], ["--name=n1"]])
def test_without_a_note_there_is_none(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert early.opened(arguments) == ()
    assert early.opened([f"--state={tmp_path}"]) == ()
