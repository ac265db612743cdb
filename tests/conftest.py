"""What the machine must have for the tests that say so, and which tests may run side by side.

A test marked `root` or `etcd` fails where that is missing: a suite that skips in silence proves nothing. Whoever
cannot have it asks: `ORCH_TEST_SKIP=root,etcd make test`.
"""

import os
import shutil
from pathlib import Path

import pytest

REMEDIES = {
    "root": "run it as root, or ask with ORCH_TEST_SKIP=root to skip",
    "etcd": "apt-get install etcd-server, or ask with ORCH_TEST_SKIP=etcd to skip",
}
CLUSTER = {"agent", "controlplane", "deploy", "e2e", "orchctl"}
"""Folders whose tests as root are of nodes and their network; the others are of containers."""

_running: set[str] = set()


def _missing(mark: str) -> bool:
    return os.geteuid() != 0 if mark == "root" else shutil.which("etcd") is None


def pytest_configure() -> None:
    """A misspelt wish is an error, not a test that runs all the same."""
    unknown = _asked_to_skip() - set(REMEDIES)
    if unknown:
        raise pytest.UsageError(f"ORCH_TEST_SKIP names {', '.join(sorted(unknown))}; it may name root and etcd")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests as root share the machine's two cores and its kernel's tables: two rows of them, one for each core."""
    for item in items:
        if item.get_closest_marker("root") is not None:
            of_cluster = not CLUSTER.isdisjoint(Path(item.path).parts)
            item.add_marker(pytest.mark.xdist_group("cluster" if of_cluster else "runtime"))


def pytest_runtest_logstart(nodeid: str) -> None:
    """Also called where workers run the tests."""
    _running.add(nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """The counterpart."""
    _running.discard(nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A suite that was cut off tells where it was."""
    for nodeid in sorted(_running):
        terminalreporter.write_line(f"UNFINISHED {nodeid}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fails or skips what cannot run here."""
    for mark, remedy in REMEDIES.items():
        if item.get_closest_marker(mark) is None:
            continue
        if mark in _asked_to_skip():
            pytest.skip(f"ORCH_TEST_SKIP asks to skip what needs {mark}")
        if _missing(mark):
            pytest.fail(f"this test needs {mark}: {remedy}", pytrace=False)


def _asked_to_skip() -> set[str]:
    return {word.strip() for word in os.environ.get("ORCH_TEST_SKIP", "").split(",") if word.strip()}
