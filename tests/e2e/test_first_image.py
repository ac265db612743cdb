"""docs/first-image.md, as a person follows it: every file is written, and every command typed."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from images.store import ImageStore
from tests.support import cluster
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

PAGE = (cluster.ROOT / "docs/first-image.md").read_text()
PROSE = re.sub(r"^```\w+\n.+?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    (\S.*)$", PROSE, re.MULTILINE)
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ANSWERS = ["first\n", "second\n", "first\n"]


def test_the_page_can_be_followed(local: LocalCluster, tmp_path: Path) -> None:
    """From an empty folder to the next version and back, with an image that was in no registry."""
    work = tmp_path / "work"
    work.mkdir()
    assert set(FILES) == {"Dockerfile", "page.yaml"}
    for name, text in FILES.items():
        (work / name).write_text(text)
    environment = {
        **cluster.environment(local.plan.config),
        "ORCH_IMAGE_STORE": str(tmp_path / "store"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    answers, task = iter(ANSWERS), ""
    for command in COMMANDS:
        if command.startswith("curl"):
            path = command.rpartition("/")[2]
            expect(local, f"/{path}", next(answers))
        else:
            task = task or (_ready(local) if "TASK" in command else "")
            typed(command.replace("TASK", task or "TASK"), work, environment)
    assert next(answers, None) is None, "every answer was asked for"
    assert not local.tasks("page")
    assert not ImageStore(tmp_path / "store").names()


def _ready(local: LocalCluster) -> str:
    """One that is there to stay."""
    ready = [task.meta.name for task in local.await_whole("page", 2) if task.status.ready]
    return ready[0]


def expect(local: LocalCluster, path: str, answer: str) -> None:
    """Every node answers so, once connections go to the new tasks."""
    for node in local.nodes().values():
        address = node.address
        until(
            lambda address=address: cluster.get(address, port=18095, path=path) == answer,  # type: ignore[misc]
            what=f"{address} answers {answer!r}",
            timeout_s=20,
        )


def typed(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
