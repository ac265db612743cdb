"""A build that is killed leaves nothing running, no mount, and a store that the next build can use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images.build import builder, context, workshop
from images.store import ImageStore
from tests.support import building, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.build.watching import Step
    from tests.support.building import Bench

pytestmark = pytest.mark.root

_BUILDER = """
import sys
from pathlib import Path
from images.build import builder, context, workshop
from images.store import ImageStore
store, area, folder = map(Path, sys.argv[1:])
with context.folder(folder) as found:
    builder.build(ImageStore(store), found, workshop.Options(), area=area)
"""
_MARK = "orch-test-of-a-killed-build"


@pytest.fixture
def build(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """A build in a process of its own, whose command runs."""
    text = f"FROM localhost/base\nRUN touch /before\nRUN exec sh -c 'sleep 600; : {_MARK}'\n"
    arguments = [str(bench.store.root), str(bench.area), str(bench.context({"Dockerfile": text}))]
    root = Path(__file__).parents[4]
    process = subprocess.Popen([sys.executable, "-c", _BUILDER, *arguments], env={"PYTHONPATH": str(root)})
    try:
        waiting.until(commands, what="the command runs", timeout_s=30)
        yield process
    finally:
        process.kill()
        process.wait()
        waiting.until(lambda: not commands(), what="the command has ended", timeout_s=30)


def commands() -> list[int]:
    """The running commands of this test, by a word that only they have."""
    return with_words(_MARK)


def with_words(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return [pid for pid in found if pid != os.getpid()]


def ours(bench: Bench) -> list[int]:
    """Every process that was started with a path of this build."""
    return with_words(str(bench.area))


def test_nothing_is_left_of_a_build_that_is_killed(bench: Bench, build: subprocess.Popen[bytes]) -> None:
    build.kill()
    build.wait()
    waiting.until(lambda: not commands(), what="the command has ended", timeout_s=30)
    waiting.until(lambda: not ours(bench), what="launcher, monitors and keeper have ended", timeout_s=30)
    assert str(bench.folder) not in Path("/proc/self/mountinfo").read_text()
    store = ImageStore(bench.store.root)
    assert list(store.tmp.iterdir()) == []
    assert list(bench.area.iterdir()) == [], "secrets lie there"
    again = bench.build("FROM localhost/base\nRUN touch /before\n")
    assert bench.last.cached == ["RUN touch /before"], "what was finished is known"
    assert "before" in bench.tree(again)


def test_the_next_build_ends_what_even_the_keeper_could_not(bench: Bench, build: subprocess.Popen[bytes]) -> None:
    """All processes of the builder are killed at once; the container goes on, until somebody builds again."""
    keepers = [pid for pid in with_words("images.build.keeper") if pid in ours(bench)]
    assert len(keepers) == 1
    os.kill(keepers[0], signal.SIGKILL)
    build.kill()
    build.wait()
    assert commands()
    bench.build("FROM localhost/base\nRUN touch /other\n")
    assert not commands()
    assert not list(bench.area.iterdir())


def test_a_build_leaves_no_control_group(bench: Bench) -> None:
    """Neither of its commands nor of itself."""
    seen: set[str] = set()

    class Curious(building.Witness):
        def wrote(self, step: Step, data: bytes) -> None:
            super().wrote(step, data)
            seen.update(path.name for path in bench.area.iterdir())

    with context.folder(bench.context({"Dockerfile": "FROM localhost/base\nRUN echo hi\n"})) as found:
        builder.build(bench.store, found, workshop.Options(), area=bench.area, watcher=Curious())
    (name,) = seen
    groups = [str(path) for path in (*Path("/sys/fs/cgroup").glob("orch/*"), *Path("/sys/fs/cgroup").glob("*/orch/*"))]
    assert not [path for path in groups if name in path]


def test_an_interrupted_build_ends_its_commands(bench: Bench, build: subprocess.Popen[bytes]) -> None:
    build.send_signal(signal.SIGINT)
    build.wait(30)
    assert not commands()
    assert not list(bench.area.iterdir())
    assert not list(bench.store.tmp.iterdir())
