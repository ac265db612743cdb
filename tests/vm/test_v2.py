"""The runtime on Debian's own kernel with control groups of version 2 alone, as a part of the suite."""

import platform

import pytest

from tests.vm import machine

# Not beside other tests that take the machine's processors, or measure their own.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(machine.TIMEOUT_S + 60)]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the virtual machine is an x86_64")
def test_runtime_on_version_2() -> None:
    """What depends on the kernel or on cgroups holds there; the machine's own report says what does not."""
    code, said = machine.run()
    assert code == 0, said
    assert " passed" in said
    assert "/sys/fs/cgroup cgroup2" in said, "this was not a machine with version 2 alone"
    assert " cgroup rw" not in said
