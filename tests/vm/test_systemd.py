"""The runtime where Debian's systemd is process 1, with control groups of either version, as a part of the suite."""

import platform

import pytest

from tests.vm import machine

# Not beside other tests that take the machine's processors, or measure their own.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(machine.TIMEOUT_S + 60),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the virtual machine is an x86_64"),
]
EXPLAINED: tuple[str, ...] = ()
"""Reasons for which a test may be skipped there; that systemd does not run is none."""


def _passed(kind: machine.Kind) -> str:
    """What the machine said; every test passed but for those whose skip is explained."""
    code, said = machine.run(kind=kind)
    assert code == 0, said
    assert " passed" in said
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    assert not [line for line in skipped if not line.endswith(EXPLAINED)], said
    return said


def test_runtime_under_systemd_on_version_2() -> None:
    """As Debian has it: one hierarchy."""
    said = _passed(machine.SYSTEMD)
    assert "/sys/fs/cgroup cgroup2" in said, "this was not a machine with version 2 alone"
    assert " cgroup rw" not in said


def test_runtime_under_systemd_on_version_1() -> None:
    """As systemd calls it, hybrid: the controllers are those of version 1, and a second hierarchy has none."""
    said = _passed(machine.LEGACY)
    assert "/sys/fs/cgroup/memory cgroup" in said, "this was not a machine with controllers of version 1"
    assert "/sys/fs/cgroup/systemd cgroup" in said
