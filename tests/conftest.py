"""What the machine must have for the tests that say so, and which tests may run side by side.

A test marked `root` or `etcd` fails where that is missing: a suite that skips in silence proves nothing. Whoever
cannot have it asks: `ORCH_TEST_SKIP=root,etcd make test`.
"""

import contextlib
import os
import shutil
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

REMEDIES = {
    "root": "run it as root, or ask with ORCH_TEST_SKIP=root to skip",
    "etcd": "apt-get install etcd-server, or ask with ORCH_TEST_SKIP=etcd to skip",
}
ROWS = {
    "containers": (
        "tests/integration/images/",
        "tests/integration/runtime/",
        "tests/integration/runtime_cli/",
        "tests/vm/",
    ),
    "nodes": ("tests/contract/agent/", "tests/e2e/", "tests/integration/agent/", "tests/integration/deploy/"),
}
_running: set[str] = set()


def _missing(mark: str) -> bool:
    return os.geteuid() != 0 if mark == "root" else shutil.which("etcd") is None


with contextlib.suppress(ImportError):  # the virtual machines have nothing but pytest
    import hypothesis

    # How fast an example is drawn and done depends on what else the machine does; what hangs meets its test's bound.
    checks = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=checks)
    hypothesis.settings.load_profile("untimed")


def pytest_configure() -> None:
    """A misspelt wish is an error, not a test that runs all the same."""
    unknown = _asked_to_skip() - set(REMEDIES)
    if unknown:
        raise pytest.UsageError(f"ORCH_TEST_SKIP names {', '.join(sorted(unknown))}; it may name root and etcd")


class Rows(LoadScopeScheduling):
    """Tests as root share the machine's two cores and its kernel's tables: two rows of them. Of the others those of
    one file of `tests/integration/`, which may share a cluster and its story, stay together; the rest goes one by one.

    By the folder: marks of groups do not reach the scheduler (pytest-xdist 3.8 with pytest 9).
    """

    def _split_scope(self, nodeid: str) -> str:
        """The row of a test, by its name."""
        row = next((row for row, folders in ROWS.items() if nodeid.startswith(folders)), None)
        if row is not None:
            return row
        return nodeid.partition("::")[0] if nodeid.startswith("tests/integration/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Rows:
    """Whatever `--dist` says."""
    return Rows(config, log)


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
