"""What a token is said by."""

import contextlib
import io
import os
import pty
import sys
from pathlib import Path

import pytest

from trust import joining
from trust.core import token
from trust.core.identity import Role

TOKEN = str(token.make(Role.NODE, "0" * 64, b"0123456789abcdef"))


def test_a_token_is_an_argument_or_a_file_s_content(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert joining.said(TOKEN) == joining.said(f"@{tmp_path}/token") == TOKEN
    with pytest.raises(joining.NotJoined, match=r"cannot read the token from .*gone: No such file"):
        joining.said(f"@{tmp_path}/gone")


def test_a_dash_is_the_first_line_of_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody sees it, other than among the arguments."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\nand more\n"))
    assert joining.token_of("-", Role.NODE) == TOKEN
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(joining.NotJoined, match="no token came on the standard input") as refused:
        joining.token_of("-", Role.NODE)
    assert "echo TOKEN | orchctl" in refused.value.hint


def test_at_a_terminal_it_is_asked_for_and_not_shown() -> None:
    script = f"from trust import joining; assert joining.said('-') == {TOKEN!r}"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", script])
    shown = os.read(terminal, 7)
    assert shown == b"token: "
    os.write(terminal, f"{TOKEN}\n".encode())
    with contextlib.suppress(OSError):  # EIO: whoever was at the other end has ended
        while part := os.read(terminal, 1000):
            shown += part
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode()
    assert TOKEN not in shown.decode()
