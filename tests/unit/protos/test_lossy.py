"""The log of a daemon never ends it."""

import subprocess
import sys
from pathlib import Path

import pytest

from protos.lossy import lossy


def test_what_can_be_written_arrives(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        print("a line, ä", file=lossy(file), flush=True)
        assert path.read_text(encoding="utf-8") == "a line, ä\n"


@pytest.mark.parametrize("form", ["json", "console"])
def test_daemons_go_on_while_their_log_is_full(form: str) -> None:
    configure = f"from telemetry import logs; logs.configure('info', {form!r})"
    script = f"{configure}; import structlog; structlog.get_logger().info('word', x='y' * 9000); print('goes on')"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stderr=full, stdout=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.stdout == "goes on\n"
